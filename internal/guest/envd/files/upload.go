package files

import (
	"compress/gzip"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"path/filepath"
	"strings"

	"wrenn.dev/wrenn/internal/guest/envd/filesystem"
	"wrenn.dev/wrenn/internal/guest/envd/user"
)

const (
	metadataHeader   = "X-Metadata-"
	maxMetadata      = 64
	maxMetadataKey   = 200
	maxMetadataBytes = 2 << 10 // what every file system has room for
)

// upload is one request that stores files.
type upload struct {
	user    user.User
	query   Query
	signed  bool
	options filesystem.Options
	form    *multipart.Reader // nil when the body is one file
	body    io.Reader
	limit   int
	stored  []Stored
}

// Stored is a file that an upload made, in its answer.
type Stored struct {
	Name     string            `json:"name"`
	Path     string            `json:"path"`
	Type     string            `json:"type"`
	Metadata map[string]string `json:"metadata,omitempty"`
}

// newUpload reads all of a request but its body.
func (h *Handler) newUpload(a *answer, r *http.Request, q Query, u user.User, signed bool) (*upload, error) {
	up := &upload{user: u, query: q, signed: signed, limit: h.limits.Files}
	if q.Mode != nil && signed {
		return nil, invalid("mode is not part of a signature: it needs the access token")
	}
	meta, err := metadata(r.Header)
	if err != nil {
		return nil, err
	}
	up.options = filesystem.Options{Mode: q.Mode, Metadata: meta}
	kind, params, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	isForm := strings.HasPrefix(kind, "multipart/") && params["boundary"] != ""
	if err != nil || !isForm && kind != "application/octet-stream" {
		return nil, invalid("unsupported content type: '%.100s', expected multipart/form-data with a boundary, or application/octet-stream",
			r.Header.Get("Content-Type"))
	}
	if !isForm && !q.HasPath {
		return nil, invalid("path query parameter is required for raw body upload")
	}
	if up.body, err = unpacked(&body{ReadCloser: r.Body, answer: a}, r.Header); err != nil {
		return nil, err
	}
	if isForm {
		up.form = multipart.NewReader(up.body, params["boundary"])
	}
	return up, nil
}

// run stores what the request has. Preconditions: the thread is the user's.
func (up *upload) run() error {
	if up.form == nil {
		return up.store(up.query.Path, up.body)
	}
	for {
		part, err := up.form.NextPart()
		if err == io.EOF {
			break
		}
		if err != nil {
			return broken(err)
		}
		if part.FormName() != "file" {
			continue
		}
		name, err := up.name(part)
		if err != nil {
			return err
		}
		if err := up.store(name, part); err != nil {
			return err
		}
	}
	if len(up.stored) == 0 {
		return invalid("the form has no field 'file'")
	}
	return nil
}

// name is the path of a form's file: that of the query, or its file name with all its folders.
func (up *upload) name(part *multipart.Part) (string, error) {
	if up.query.Path != "" {
		return up.query.Path, nil
	}
	_, params, err := mime.ParseMediaType(part.Header.Get("Content-Disposition"))
	name := params["filename"]
	if err != nil || name == "" {
		return "", invalid("a file has no name: give it one in the form, or a path in the query")
	}
	// Who signed no path meant the file's place to be the home.
	if up.signed && (strings.ContainsRune(name, '/') || strings.HasPrefix(name, "~") || name == "." || name == "..") {
		return "", invalid("the file name '%.255s' is a path, but no path is signed", name)
	}
	return name, nil
}

// store stores one file.
func (up *upload) store(name string, r io.Reader) error {
	if name == "" {
		return invalid("path is empty: name a file")
	}
	path, err := filesystem.Resolve(up.user, name)
	if err != nil {
		return err
	}
	if len(up.stored) == up.limit {
		return invalid("more than %d files in one form", up.limit)
	}
	for _, s := range up.stored {
		if s.Path == path {
			return invalid("you cannot upload multiple files to the same path '%s' in one upload request", path)
		}
	}
	if err := filesystem.Store(path, content{r}, up.options); err != nil {
		return err
	}
	up.stored = append(up.stored, Stored{Name: filepath.Base(path), Path: path, Type: "file", Metadata: up.options.Metadata})
	return nil
}

// content is what a file is made of. What goes wrong with it is the upload's fault, and not the file's.
type content struct{ io.Reader }

// Read implements io.Reader.
func (c content) Read(p []byte) (int, error) {
	n, err := c.Reader.Read(p)
	if err != nil && err != io.EOF {
		err = broken(err)
	}
	return n, err
}

func broken(err error) error { return invalid("the upload can't be read to its end: %v", err) }

// body is a request's body whose client may not stop sending.
type body struct {
	io.ReadCloser
	answer *answer
}

// Read implements io.Reader.
func (b *body) Read(p []byte) (int, error) {
	b.answer.expect()
	return b.ReadCloser.Read(p)
}

// unpacked is a body without its encoding.
func unpacked(r io.Reader, header http.Header) (io.Reader, error) {
	switch encoding := strings.ToLower(strings.TrimSpace(header.Get("Content-Encoding"))); encoding {
	case "", "identity":
		return r, nil
	case "gzip", "x-gzip":
		z, err := gzip.NewReader(r)
		if err != nil {
			return nil, invalid("the body is no gzip: %v", err)
		}
		return z, nil
	default:
		return nil, invalid("unsupported Content-Encoding: '%.50s', supported: gzip", encoding)
	}
}

// metadata reads the headers that say what is to be kept with a file.
func metadata(header http.Header) (map[string]string, error) {
	var m map[string]string
	total := 0
	for name, values := range header {
		if len(name) < len(metadataHeader) || !strings.EqualFold(name[:len(metadataHeader)], metadataHeader) {
			continue
		}
		key := strings.ToLower(name[len(metadataHeader):])
		switch {
		case key == "" || len(key) > maxMetadataKey || !printableASCII(key):
			return nil, invalid("invalid metadata key '%.100s'", key)
		case len(values) != 1:
			return nil, invalid("metadata '%s' is given %d times: give it once", key, len(values))
		case !printableASCII(values[0]):
			return nil, invalid("the value of metadata '%s' has more than printable ASCII in it", key)
		}
		if total += len(key) + len(values[0]); total > maxMetadataBytes || len(m) == maxMetadata {
			return nil, invalid("metadata may have %d keys, and %d bytes together", maxMetadata, maxMetadataBytes)
		}
		if m == nil {
			m = map[string]string{}
		}
		m[key] = values[0]
	}
	return m, nil
}

func printableASCII(s string) bool {
	for i := range len(s) {
		if s[i] < ' ' || s[i] > '~' {
			return false
		}
	}
	return true
}
