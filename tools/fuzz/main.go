// Fuzz runs every fuzz target of the module for a while, one after another, and fails when one fails or none is found.
//
//	go run ./tools/fuzz --time 5s
package main

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"time"
)

// least is the number of targets below which something is wrong with finding them.
const least = 5

// tries is how often a target may end as lateStop says.
const tries = 4

var targetName = regexp.MustCompile(`(?m)^func (Fuzz\w+)\(`)

type target struct{ pkg, name string }

func main() {
	each := flag.Duration("time", 5*time.Second, "how long each target runs")
	flag.Parse()
	if err := run(*each); err != nil {
		fmt.Fprintln(os.Stderr, "fuzz:", err)
		os.Exit(1)
	}
}

func run(each time.Duration) error {
	targets, err := find()
	if err != nil {
		return err
	}
	if len(targets) < least {
		return fmt.Errorf("found %d fuzz targets, want at least %d", len(targets), least)
	}
	for _, t := range targets {
		began := time.Now()
		out, err := t.fuzz(each)
		for try := 1; err != nil && lateStop(out) && try < tries; try++ {
			fmt.Printf("fuzz %-32s its time ended, and go test took that for a failure: again\n", t.name)
			out, err = t.fuzz(each)
		}
		if err != nil {
			return fmt.Errorf("%s in %s: %w\n%s", t.name, t.pkg, err, out)
		}
		fmt.Printf("fuzz %-32s %-40s %5.1fs\n", t.name, t.pkg, time.Since(began).Seconds())
	}
	fmt.Printf("fuzz: %d targets, none failed\n", len(targets))
	return nil
}

func (t target) fuzz(each time.Duration) ([]byte, error) {
	return exec.Command("go", "test", "-run", "^$", "-fuzz", "^"+t.name+"$", "-fuzztime", each.String(), t.pkg).CombinedOutput()
}

var failure = regexp.MustCompile(`(?m)^--- FAIL: Fuzz\w+ .*\n +(.*)\n`)

// lateStop says whether a target failed by nothing but the end of its time: up to Go 1.26 the end of -fuzztime races with the workers'
// own (https://go.dev/issue/75804). A finding says more than that, and where its input is.
func lateStop(out []byte) bool {
	found := failure.FindSubmatch(out)
	return found != nil && string(found[1]) == "context deadline exceeded" && !bytes.Contains(out, []byte("Failing input"))
}

// find reads the test files for targets: cheaper than building every test binary to ask it.
func find() ([]target, error) {
	var targets []target
	err := filepath.WalkDir(".", func(path string, d os.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && strings.HasPrefix(d.Name(), ".") && path != ".":
			return filepath.SkipDir
		case !strings.HasSuffix(path, "_test.go") || strings.HasSuffix(path, "_host_test.go"):
			return nil
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for _, m := range targetName.FindAllStringSubmatch(string(text), -1) {
			targets = append(targets, target{"./" + filepath.Dir(path), m[1]})
		}
		return nil
	})
	return targets, err
}
