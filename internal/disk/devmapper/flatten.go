package devmapper

import (
	"context"
	"fmt"
	"os"

	"wrenn.dev/wrenn/internal/disk"
	"wrenn.dev/wrenn/internal/disk/devmapper/exception"
	"wrenn.dev/wrenn/internal/failpoint"
	"wrenn.dev/wrenn/internal/sparse"
)

// The names of the steps; see failpoint.
var (
	pointFlatten       = failpoint.New("disk.flatten-file")
	pointFlattenBase   = failpoint.New("disk.flatten-base")
	pointFlattenStore  = failpoint.New("disk.flatten-store")
	pointFlattenSynced = failpoint.New("disk.flatten-synced")
)

// FlattenFailpoints are the names of the steps of Flatten, in their order.
func FlattenFailpoints() []string {
	return failpoint.Names(pointFlatten, pointFlattenBase, pointFlattenStore, pointFlattenSynced)
}

// Flatten implements disk.Freezer.
func (d *Driver) Flatten(ctx context.Context, base disk.Base, store string, sizeBytes int64, dst string) error {
	image, imageBytes, err := openImage(base)
	if err != nil {
		return err
	}
	defer image.Close()
	size, err := deviceBytes(sizeBytes, imageBytes)
	if err != nil {
		return err
	}
	frozen, err := d.openStore(store, size)
	if err != nil {
		return err
	}
	defer frozen.Close()
	if err := context.Cause(ctx); err != nil {
		return err
	}
	flat := flattening{Driver: d, image: image, store: frozen, size: size}
	if err := writeFile(ctx, dst, pointFlattenSynced, func(f *os.File) error { return flat.write(ctx, f) }, nil); err != nil {
		return fmt.Errorf("flatten %s: %w", store, err)
	}
	return nil
}

// flattening is one Flatten under way.
type flattening struct {
	*Driver
	image, store *os.File
	size         int64 // of the device
}

// write makes dst the base with zeros after it, then puts the chunks of the store in their places.
func (fl flattening) write(ctx context.Context, dst *os.File) error {
	if err := failpoint.Here(ctx, pointFlatten); err != nil {
		return err
	}
	if _, err := fl.copyInto(ctx, dst, fl.image); err != nil {
		return err
	}
	if err := dst.Truncate(fl.size); err != nil {
		return err
	}
	if err := failpoint.Here(ctx, pointFlattenBase); err != nil {
		return err
	}
	used, err := sparse.Used(fl.store.Name())
	if err != nil {
		return err
	}
	if err := fl.roomFor(dst, used); err != nil {
		return err
	}
	buf := make([]byte, exception.AreaChunks*exception.ChunkBytes)
	err = exception.Walk(fl.store, fl.storeBytes(fl.size), fl.size, func(run exception.Run) error {
		if err := context.Cause(ctx); err != nil {
			return err
		}
		data := buf[:run.Chunks*exception.ChunkBytes]
		if _, err := fl.store.ReadAt(data, run.New*exception.ChunkBytes); err != nil {
			return err
		}
		return sparse.Replace(dst, data, run.Old*exception.ChunkBytes)
	})
	if err != nil {
		return err
	}
	return failpoint.Here(ctx, pointFlattenStore)
}
