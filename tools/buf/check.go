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

	"wrenn.dev/wrenn/tools/wheel"
)

// baseline is the protos as they were last agreed on with their callers, as a descriptor set: a clone needs no history for it.
const baseline = "proto/baseline.binpb"

// check fails when a proto is against the rules or not formatted, when one breaks callers of the baseline, when the baseline lacks what
// the protos have, or when the code beside the protos is not what they generate.
func check(ctx context.Context, buf string) error {
	if err := wheel.Run(ctx, buf, "lint"); err != nil {
		return err
	}
	if err := wheel.Run(ctx, buf, "format", "--diff", "--exit-code"); err != nil {
		return err
	}
	tmp, err := os.MkdirTemp("", "buf-check-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	if err := compatible(ctx, buf, tmp); err != nil {
		return err
	}
	if err := wheel.Run(ctx, buf, "generate", "--output", tmp); err != nil {
		return err
	}
	return compare(filepath.Join(tmp, "proto"), "proto")
}

// compatible fails when a caller made from the baseline can't be served any more, and when the baseline is not what the protos are now:
// what is added goes into it in the same commit, so that the next one can't break it.
func compatible(ctx context.Context, buf, tmp string) error {
	if err := wheel.Run(ctx, buf, "breaking", "--against", baseline); err != nil {
		return fmt.Errorf("the protos break callers of %s; docs/development.md says what to do: %w", baseline, err)
	}
	now := filepath.Join(tmp, "now.binpb")
	if err := describe(ctx, buf, now); err != nil {
		return err
	}
	want, err := os.ReadFile(now)
	if err != nil {
		return err
	}
	have, err := os.ReadFile(baseline)
	if err != nil {
		return err
	}
	if !bytes.Equal(want, have) {
		return fmt.Errorf("%s lacks what is new in the protos; run 'go run ./tools/buf baseline' (make generate)", baseline)
	}
	return nil
}

// move puts the protos as they are into the baseline, unless that breaks its callers.
func move(ctx context.Context, buf string) error {
	if err := wheel.Run(ctx, buf, "breaking", "--against", baseline); err != nil {
		return err
	}
	return describe(ctx, buf, baseline)
}

// describe writes the protos as they are, without comments, to path.
func describe(ctx context.Context, buf, path string) error {
	return wheel.Run(ctx, buf, "build", "--exclude-source-info", "--output", path)
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
