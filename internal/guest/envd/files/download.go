package files

import (
	"compress/gzip"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"syscall"

	"wrenn.dev/wrenn/internal/guest/envd/fault"
	"wrenn.dev/wrenn/internal/guest/envd/filesystem"
	"wrenn.dev/wrenn/internal/guest/envd/filesystem/actas"
	"wrenn.dev/wrenn/internal/guest/envd/user"
)

// download answers with a file's content.
func (h *Handler) download(a *answer, r *http.Request, q Query, u user.User) error {
	path, err := filesystem.Resolve(u, q.Path)
	if err != nil {
		return err
	}
	return actas.Run(u, func() error {
		f, st, err := filesystem.Open(path)
		if err != nil {
			return err
		}
		defer f.Close()
		packed, err := wantsGzip(r.Header)
		if err != nil {
			return err
		}
		head := a.Header()
		head.Set("Content-Type", "application/octet-stream")
		head.Set("X-Content-Type-Options", "nosniff")
		head.Set("Vary", "Accept-Encoding")
		if st.Size() == 0 {
			if more, err := unsized(a, r, f, path); more || err != nil {
				return err
			}
		}
		if packed && st.Size() > 0 && r.Method == http.MethodGet {
			head.Set("Content-Encoding", "gzip")
			return pack(a, f)
		}
		head.Set("ETag", etag(st))
		content := &source{File: f}
		http.ServeContent(a, r, "", st.ModTime(), content)
		return content.err
	})
}

// etag changes with a file's content, as far as can be told without reading it.
func etag(st os.FileInfo) string {
	ino := uint64(0)
	if sys, ok := st.Sys().(*syscall.Stat_t); ok {
		ino = sys.Ino
	}
	return fmt.Sprintf(`"%x-%x-%x"`, ino, st.Size(), st.ModTime().UnixNano())
}

// source is a file that remembers when it could not be read.
type source struct {
	*os.File
	err error
}

// Read implements io.Reader.
func (s *source) Read(p []byte) (int, error) {
	n, err := s.File.Read(p)
	if err != nil && err != io.EOF {
		s.err = err
	}
	return n, err
}

// firstBytes is how much is read of a file to learn that it has a content.
const firstBytes = 4 << 10

// unsized serves a file that has a content but no size, as those in /proc. Nothing is written when it is just empty.
func unsized(a *answer, r *http.Request, f *os.File, path string) (served bool, err error) {
	first := make([]byte, firstBytes)
	n, err := f.Read(first)
	if err != nil && err != io.EOF {
		return false, filesystem.Failed("read", path, err)
	}
	if n == 0 {
		return false, nil
	}
	if r.Method == http.MethodHead {
		a.WriteHeader(http.StatusOK)
		return true, nil
	}
	if _, err := a.Write(first[:n]); err != nil {
		return true, err
	}
	_, err = io.Copy(a, io.MultiReader(f)) // only to read: a file that copies itself would go past the deadlines
	return true, err
}

// pack sends all of a file compressed.
func pack(w io.Writer, f io.Reader) error {
	z, err := gzip.NewWriterLevel(w, gzip.BestSpeed) // both ends are in one machine
	if err != nil {
		return err
	}
	if _, err := io.Copy(z, f); err != nil {
		return err
	}
	return z.Close()
}

// wantsGzip says whether the client prefers the file compressed. A range, or a condition, is about the file as it is. errNotAcceptable
// when it takes the file in no way that there is.
func wantsGzip(header http.Header) (bool, error) {
	packed, plain := quality(header.Values("Accept-Encoding"))
	for _, name := range []string{"Range", "If-Range", "If-Match", "If-None-Match", "If-Modified-Since", "If-Unmodified-Since"} {
		if header.Get(name) != "" && plain > 0 {
			return false, nil
		}
	}
	if packed == 0 && plain == 0 {
		return false, fault.New(errNotAcceptable, "no acceptable encoding: there are gzip and identity")
	}
	return packed > 0 && packed >= plain, nil
}

// quality reads how much the client likes gzip and the plain file; 0 is not at all. What it says nothing of, the plain file is a
// little: it is taken if there is nothing better.
func quality(values []string) (packed, plain float64) {
	const little = 1e-6
	packed, plain = 0, -1
	any, anySet := 0.0, false
	packedSet := false
	for _, value := range strings.Split(strings.Join(values, ","), ",") {
		name, q := coding(value)
		switch name {
		case "gzip", "x-gzip":
			packed, packedSet = q, true
		case "identity":
			plain = q
		case "*":
			any, anySet = q, true
		}
	}
	switch {
	case plain >= 0:
	case anySet && any == 0:
		plain = 0
	default:
		plain = little
	}
	if !packedSet && anySet && plain == 0 {
		packed = any
	}
	return packed, plain
}

// coding reads one part of the header: a name, and a quality that is 1 when it is not given or is none.
func coding(value string) (name string, q float64) {
	name, params, _ := strings.Cut(value, ";")
	q = 1
	for param := range strings.SplitSeq(params, ";") {
		if key, text, ok := strings.Cut(strings.TrimSpace(param), "="); ok && strings.EqualFold(key, "q") {
			if n, err := strconv.ParseFloat(text, 64); err == nil && n >= 0 && n <= 1 {
				q = n
			}
		}
	}
	return strings.ToLower(strings.TrimSpace(name)), q
}
