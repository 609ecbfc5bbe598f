// Command images makes the guest kernel and the template "base", and puts them into a store of templates:
//
//	go run ./images --out DIR
//
// Nothing is mounted. What is slow (Debian's packages and kernel) is kept in the build cache under a hash of its inputs, so
// that a change of envd costs seconds. recipe.go says what is in the image.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"wrenn.dev/wrenn/internal/buildcache"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, "images:", err)
		stop()
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, log io.Writer) error {
	b := builder{recipe: base, steps: &steps{out: log}}
	flags := flag.NewFlagSet("images", flag.ExitOnError)
	flags.StringVar(&b.out, "out", "", "folder of the templates' store (default: images in the build cache)")
	flags.StringVar(&b.envd, "envd", "", "the built envd (default: build it)")
	flags.StringVar(&b.init, "init", "", "the built wrenn-init (default: build it)")
	flags.StringVar(&b.ramdisk, "ramdisk", "", "the built first stage, cmd/wrenn-init/ramdisk (default: build it)")
	progress := flags.Bool("progress", false, "show what mmdebstrap says")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *progress {
		b.debianLog = log
	}
	if b.out == "" {
		dir, err := buildcache.Dir()
		if err != nil {
			return err
		}
		b.out = filepath.Join(dir, "images")
	}
	t, err := b.build(ctx)
	if err != nil {
		return err
	}
	fmt.Fprintf(log, "   template %s %s: kernel %s, rootfs %d MiB, in %s\n", t.Name, t.ID, t.KernelVersion, t.Rootfs.Size>>20, b.out)
	return nil
}
