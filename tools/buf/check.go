package main

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// check fails when a proto is against the rules or not formatted, or when the code beside the protos is not what they
// generate.
func check(ctx context.Context, buf string) error {
	if err := command(ctx, buf, "lint"); err != nil {
		return err
	}
	if err := command(ctx, buf, "format", "--diff", "--exit-code"); err != nil {
		return err
	}
	tmp, err := os.MkdirTemp("", "buf-check-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	if err := command(ctx, buf, "generate", "--output", tmp); err != nil {
		return err
	}
	return compare(filepath.Join(tmp, "proto"), "proto")
}

// compare fails unless have holds the same generated files as want, with the same content.
func compare(want, have string) error {
	wanted, err := generated(want)
	if err != nil {
		return err
	}
	got, err := generated(have)
	if err != nil {
		return err
	}
	if len(wanted) == 0 {
		return fmt.Errorf("nothing was generated in %s", want)
	}
	var stale []string
	for name, text := range wanted {
		if !bytes.Equal(text, got[name]) {
			stale = append(stale, name)
		}
	}
	for name := range got {
		if _, ok := wanted[name]; !ok {
			stale = append(stale, name+" (no proto makes it)")
		}
	}
	if len(stale) > 0 {
		slices.Sort(stale)
		return fmt.Errorf("generated code is not up to date; run 'go run ./tools/buf generate':\n  %s", strings.Join(stale, "\n  "))
	}
	return nil
}

// generated reads the files below a folder that buf's plugins wrote, by their path in it.
func generated(root string) (map[string][]byte, error) {
	files := map[string][]byte{}
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		if !strings.HasSuffix(path, ".pb.go") && !strings.HasSuffix(path, ".connect.go") {
			return nil
		}
		name, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		files[name], err = os.ReadFile(path)
		return err
	})
	return files, err
}
