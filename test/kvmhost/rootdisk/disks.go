package rootdisk

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"wrenn.dev/wrenn/internal/build/debian"
	"wrenn.dev/wrenn/internal/buildcache"
)

// Folder writes an ext4 image with a folder's content to path.
func Folder(ctx context.Context, f Files, path, folder string) error {
	used, err := measure(folder)
	if err != nil {
		return err
	}
	const spare = 32 << 20 // the file system's own, and a little
	return makeExt4(ctx, f.Tools, path, folder, used+used/8+spare)
}

// imagesCache is the name of the cached images of folders, and staleImage how long one is kept that nobody uses.
const (
	imagesCache = "kvmhost-folder"
	staleImage  = 24 * time.Hour
)

// CachedFolder is Folder for a big folder that seldom changes: the image is kept in the build cache under the names, sizes
// and times of the folder's files. It returns the image's path.
func CachedFolder(ctx context.Context, f Files, folder string) (string, error) {
	key := new(buildcache.Key)
	err := walk(folder, func(path string, info fs.FileInfo) error {
		key.Add(path, info.Mode().String(), strconv.FormatInt(info.Size(), 10), strconv.FormatInt(info.ModTime().UnixNano(), 10))
		return nil
	})
	if err != nil {
		return "", err
	}
	dir, err := buildcache.Get(ctx, imagesCache, key, func(ctx context.Context, dir string) error {
		return Folder(ctx, f, filepath.Join(dir, "disk.img"), folder)
	})
	if err != nil {
		return "", err
	}
	now := time.Now()
	if err := os.Chtimes(dir, now, now); err != nil {
		return "", err
	}
	return filepath.Join(dir, "disk.img"), removeStale(filepath.Dir(dir), now.Add(-staleImage))
}

// removeStale removes cached images of folders last used before a time. A machine that has one open keeps it until its end.
func removeStale(cache string, before time.Time) error {
	dirs, err := filepath.Glob(filepath.Join(cache, imagesCache+"-*"))
	if err != nil {
		return err
	}
	for _, dir := range dirs {
		if info, err := os.Stat(dir); err == nil && info.ModTime().Before(before) {
			if err := os.RemoveAll(dir); err != nil {
				return err
			}
		}
	}
	return nil
}

// Scratch returns the path of a cached empty XFS image with reflinks, sparse, of a size in bytes. It is made for use as the
// read-only base of a throw-away disk.
func Scratch(ctx context.Context, f Files, size int64) (string, error) {
	key := new(buildcache.Key).Add(recipe, strconv.FormatInt(size, 10))
	dir, err := buildcache.Get(ctx, "kvmhost-scratch", key, func(ctx context.Context, dir string) error {
		return makeXFS(ctx, f.Tools, filepath.Join(dir, "disk.img"), size)
	})
	if err != nil {
		return "", err
	}
	return filepath.Join(dir, "disk.img"), nil
}

// State is Scratch for a disk that is kept, at path, unless there is one already.
func State(ctx context.Context, f Files, path string, size int64) error {
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return makeXFS(ctx, f.Tools, path, size)
}

func makeXFS(ctx context.Context, tools, path string, size int64) error {
	if err := sparse(path, size); err != nil {
		return err
	}
	return debian.Run(ctx, tools, "mkfs.xfs", "-q", "-m", "reflink=1", path)
}

// makeExt4 makes an ext4 image of a size in bytes with a folder's content. It has no journal: nobody keeps what is written.
func makeExt4(ctx context.Context, tools, path, folder string, size int64) error {
	if err := sparse(path, size); err != nil {
		return err
	}
	if err := debian.Run(ctx, tools, "mkfs.ext4", "-q", "-F", "-m", "0", "-O", "^has_journal", "-E", "lazy_itable_init=1,nodiscard,root_owner=0:0",
		"-d", folder, path); err != nil {
		return fmt.Errorf("make a disk of %s: %w", folder, err)
	}
	return nil
}

func sparse(path string, size int64) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Truncate(size)
}

// measure returns the bytes that a folder's files take on a disk.
func measure(folder string) (used int64, err error) {
	const block = 4096
	err = walk(folder, func(_ string, info fs.FileInfo) error {
		used += 2 * block // its inode, its name, and its last block
		if stat, ok := info.Sys().(*syscall.Stat_t); ok && info.Mode().IsRegular() {
			used += min(stat.Blocks*512, info.Size()+block)
		}
		return nil
	})
	return used, err
}

// walk calls visit for everything in a folder, with paths relative to it, in the order of their names.
func walk(folder string, visit func(path string, info fs.FileInfo) error) error {
	return filepath.WalkDir(folder, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(folder, path)
		if err != nil {
			return err
		}
		return visit(rel, info)
	})
}
