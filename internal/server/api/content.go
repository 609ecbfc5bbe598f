package api

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"strconv"
	"strings"
	"time"

	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/server/control"
	"wrenn.dev/wrenn/internal/server/rest"
	pb "wrenn.dev/wrenn/proto/hostagent/v1"
)

// stall is how long a body, or an answer of bytes, may stand still because of the caller. As a whole they may take any time.
const stall = time.Minute

// streamed is a body of any size.
func streamed(w http.ResponseWriter, r *http.Request) (io.ReadCloser, error) {
	if e := r.Header.Get("Content-Encoding"); e != "" && !strings.EqualFold(e, "identity") {
		return nil, errs.Field("Content-Encoding", fmt.Sprintf("%.40q is not undone here", e), "send the bytes as they are to be stored")
	}
	return &movingBody{r.Body, http.NewResponseController(w)}, nil
}

// movingBody is a body that may not stand still.
type movingBody struct {
	io.ReadCloser
	rc *http.ResponseController
}

// Read implements io.Reader.
func (b *movingBody) Read(p []byte) (int, error) {
	_ = b.rc.SetReadDeadline(time.Now().Add(stall)) // where there is no connection, there is no deadline
	n, err := b.ReadCloser.Read(p)
	if err != nil {
		_ = b.rc.SetReadDeadline(time.Time{}) // what is left to do may take longer
	}
	if err != nil && err != io.EOF {
		err = errs.Field("body", "it broke off: "+err.Error(), fmt.Sprintf("send all of it, and let it not stand still for over %v", stall))
	}
	return n, err
}

// WriteFile implements rest.StrictServerInterface.
func (s *server) WriteFile(ctx context.Context, r rest.WriteFileRequestObject) (rest.WriteFileResponseObject, error) {
	sb, err := s.Control.Running(ctx, team(ctx), r.ID)
	if err != nil {
		return nil, err
	}
	start := &pb.WriteFileRequest_Start{Path: r.Params.Path, User: or(r.Params.User, "")}
	if r.Params.Mode != nil {
		mode, err := strconv.ParseUint(*r.Params.Mode, 8, 32)
		if err != nil {
			return nil, errs.Field("mode", err.Error(), "give three octal digits")
		}
		bits := uint32(fs.FileMode(mode).Perm())
		start.Mode = &bits
	}
	n, err := sb.WriteFile(ctx, start, r.Body)
	if err != nil {
		return nil, err
	}
	return rest.WriteFile200JSONResponse{Path: r.Params.Path, Bytes: n}, nil
}

// ReadFile implements rest.StrictServerInterface.
func (s *server) ReadFile(ctx context.Context, r rest.ReadFileRequestObject) (rest.ReadFileResponseObject, error) {
	sb, err := s.Control.Running(ctx, team(ctx), r.ID)
	if err != nil {
		return nil, err
	}
	c := &content{ctx: ctx, sb: sb, req: &pb.ReadFileRequest{Path: r.Params.Path, User: or(r.Params.User, "")}}
	f, err := sb.StatFile(ctx, c.req.User, c.req.Path)
	if err != nil {
		return nil, err
	}
	if f.GetType() != pb.FileType_FILE_TYPE_FILE {
		return nil, errs.Field("path", fmt.Sprintf("there is a %s", fileTypes[f.GetType()]), "give the path of a file")
	}
	if f.GetSymlinkTarget() != "" { // the size is the link's own
		if f, err = sb.StatFile(ctx, c.req.User, f.GetSymlinkTarget()); err != nil {
			f = nil // its content tells whether it can be read
		}
	}
	c.size = int64(f.GetSize())
	asked := or(r.Params.Range, "")
	if request := requestOf(ctx); request.Method == http.MethodHead || request.Header.Get("If-Range") != "" { // nothing here is known by a mark
		asked = ""
	}
	if c.first, c.last, c.part = byteRange(asked, c.size); c.part && c.first >= c.size {
		return nil, &rangeError{asked, c.size}
	}
	return c, nil
}

// content is an answer with a file's content. It begins with the first byte: what fails before is an error like any other.
type content struct {
	ctx         context.Context
	sb          *control.Running
	req         *pb.ReadFileRequest
	size        int64 // 0 is not known: it is empty, or a file that says nothing of its size
	part        bool
	first, last int64 // of the part
	w           http.ResponseWriter
	begun       bool
}

// VisitReadFileResponse implements rest.ReadFileResponseObject.
func (c *content) VisitReadFileResponse(w http.ResponseWriter) error {
	c.w = w
	if requestOf(c.ctx).Method == http.MethodHead {
		c.begin()
		return nil
	}
	switch {
	case c.part:
		c.req.Offset, c.req.Length = uint64(c.first), uint64(c.last-c.first+1)
	case c.size > 0:
		c.req.Length = uint64(c.size) // what it has grown by since is not announced
	}
	defer func() { _ = http.NewResponseController(w).SetWriteDeadline(time.Time{}) }()
	n, err := c.sb.ReadFile(c.ctx, c.req, c)
	if err == nil && uint64(n) < c.req.Length {
		err = fmt.Errorf("%.200q became shorter while it was read: %w", c.req.GetPath(), errs.ErrUnavailable)
	}
	if err != nil && c.begun {
		writeError(w, requestOf(c.ctx), err) // for the log
		panic(http.ErrAbortHandler)          // an end as it should be would say that this is all
	}
	if err == nil && !c.begun {
		c.begin()
	}
	return err
}

// begin says what will come.
func (c *content) begin() {
	c.begun = true
	h, status := c.w.Header(), http.StatusOK
	h.Set("Content-Type", "application/octet-stream")
	h.Set("Accept-Ranges", "bytes")
	switch {
	case c.part:
		status = http.StatusPartialContent
		h.Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", c.first, c.last, c.size))
		h.Set("Content-Length", strconv.FormatInt(c.last-c.first+1, 10))
	case c.size > 0:
		h.Set("Content-Length", strconv.FormatInt(c.size, 10))
	}
	c.w.WriteHeader(status)
}

// Write implements io.Writer.
func (c *content) Write(p []byte) (int, error) {
	if !c.begun {
		c.begin()
	}
	_ = http.NewResponseController(c.w).SetWriteDeadline(time.Now().Add(stall)) // where there is no connection, there is no deadline
	return c.w.Write(p)
}

// byteRange reads the header for a part of a file that has size bytes. What is none, or several, is passed over, as HTTP allows; so is every one of a file
// without a size. A first that is not below size is beyond the end.
func byteRange(header string, size int64) (first, last int64, part bool) {
	text, ok := strings.CutPrefix(header, "bytes=")
	from, to, ok2 := strings.Cut(text, "-")
	a, aerr := strconv.ParseUint(from, 10, 63)
	b, berr := strconv.ParseUint(to, 10, 63)
	switch {
	case !ok || !ok2 || size == 0:
		return 0, 0, false
	case from == "" && berr == nil: // the last b
		if b == 0 {
			return size, size, true
		}
		return max(size-int64(b), 0), size - 1, true
	case aerr == nil && to == "":
		return int64(a), size - 1, true
	case aerr == nil && berr == nil && a <= b:
		return int64(a), min(int64(b), size-1), true
	}
	return 0, 0, false
}

// rangeError is a part that a file does not have.
type rangeError struct {
	asked string
	size  int64
}

// Error implements error.
func (e *rangeError) Error() string {
	return fmt.Sprintf("the file has %d bytes and nothing at %.40q", e.size, e.asked)
}

// Unwrap says what kind of error it is.
func (e *rangeError) Unwrap() error { return errs.ErrInvalid }
