package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"wrenn.dev/wrenn/internal/errs"
)

// copyBytes is how much of a file is held at once.
const copyBytes = 64 << 10

// watchdog ends a transfer when the guest neither takes nor sends anything for too long. The caller's own reader and writer may take
// their time.
type watchdog struct {
	timer  *time.Timer
	cancel context.CancelCauseFunc
}

func newWatchdog(ctx context.Context) (context.Context, *watchdog) {
	ctx, cancel := context.WithCancelCause(ctx)
	return ctx, &watchdog{cancel: cancel, timer: time.AfterFunc(silence, func() {
		cancel(broken(fmt.Errorf("envd was silent for %v", silence)))
	})}
}

func (w *watchdog) stop() {
	w.timer.Stop()
	w.cancel(nil)
}

// content is a request for a file's content.
func (f *Files) content(ctx context.Context, method, path string, mode *fs.FileMode, body io.Reader) (*http.Request, error) {
	if err := f.check(path); err != nil {
		return nil, err
	}
	q := url.Values{"path": {path}}
	if f.user != "" {
		q.Set("username", f.user)
	}
	if mode != nil {
		q.Set("mode", strconv.FormatUint(uint64(mode.Perm()), 8))
	}
	return http.NewRequestWithContext(ctx, method, baseURL+"/files?"+q.Encode(), body)
}

// Download writes a part of a file, from an offset on: length bytes or, if the file ends before, fewer. It returns how many. A length
// below 0 is all that the file has, which is what the guest says: whoever asks for it bounds the writer.
//
// What was written before an error is not taken back. ErrInvalid for an offset beyond the file's end; the error of w as it is.
func (f *Files) Download(ctx context.Context, path string, offset, length int64, w io.Writer) (int64, error) {
	if offset < 0 || length > 0 && offset+length < 0 {
		return 0, fmt.Errorf("a file has no range of %d bytes at %d: %w", length, offset, errs.ErrInvalid)
	}
	if length == 0 {
		_, err := f.Stat(ctx, path)
		return 0, err
	}
	ctx, dog := newWatchdog(ctx)
	defer dog.stop()
	req, err := f.content(ctx, http.MethodGet, path, nil, nil)
	if err != nil {
		return 0, err
	}
	whole := offset == 0 && length < 0
	switch {
	case whole:
	case length < 0:
		req.Header.Set("Range", fmt.Sprintf("bytes=%d-", offset))
	default:
		req.Header.Set("Range", fmt.Sprintf("bytes=%d-%d", offset, offset+length-1))
	}
	resp, err := f.client.content.Do(req)
	if err != nil {
		return 0, here(ctx, err)
	}
	defer resp.Body.Close()
	want, err := expected(resp, whole, offset, length)
	if err != nil {
		return 0, err
	}
	return receive(ctx, dog, resp.Body, w, want)
}

// expected is how many bytes an answer will have, at most length if that is not below 0; -1 is unknown.
func expected(resp *http.Response, whole bool, offset, length int64) (int64, error) {
	none := resp.StatusCode == http.StatusOK && resp.ContentLength == 0 && !whole // an empty file has no ranges
	if none && offset == 0 {
		return 0, nil
	}
	if none || resp.StatusCode == http.StatusRequestedRangeNotSatisfiable {
		return 0, &guestError{kind: errs.ErrInvalid, text: fmt.Sprintf("guest: the file has nothing at %d", offset)}
	}
	if resp.StatusCode != http.StatusOK && resp.StatusCode != http.StatusPartialContent {
		return 0, refusedFile(resp)
	}
	if resp.Header.Get("Content-Encoding") != "" {
		return 0, unsound("it is encoded")
	}
	switch {
	case whole && resp.StatusCode == http.StatusOK:
		return resp.ContentLength, nil
	case !whole && resp.StatusCode == http.StatusOK:
		return 0, &guestError{kind: errs.ErrFailedPrecondition, text: "guest: the file has no size: it can only be read as a whole"}
	case whole:
		return 0, unsound("a part of what was asked for as a whole")
	}
	first, last, err := contentRange(resp.Header.Get("Content-Range"))
	if err != nil {
		return 0, err
	}
	n := last - first + 1
	if first != offset || length >= 0 && n > length || resp.ContentLength >= 0 && resp.ContentLength != n {
		return 0, unsound("another range than the one asked for: %d-%d", first, last)
	}
	return n, nil
}

// contentRange reads the header of a part: "bytes first-last/size".
func contentRange(header string) (first, last int64, err error) {
	text, ok := strings.CutPrefix(header, "bytes ")
	text, size, ok2 := strings.Cut(text, "/")
	from, to, ok3 := strings.Cut(text, "-")
	first, err1 := strconv.ParseInt(from, 10, 64)
	last, err2 := strconv.ParseInt(to, 10, 64)
	if !ok || !ok2 || !ok3 || err1 != nil || err2 != nil || first < 0 || last < first || last == 1<<63-1 {
		return 0, 0, unsound("the range %.100q", header)
	}
	if total, err := strconv.ParseInt(size, 10, 64); size != "*" && (err != nil || total <= last) {
		return 0, 0, unsound("the range %.100q", header)
	}
	return first, last, nil
}

// receive copies a body that has want bytes; below 0 is as many as come.
func receive(ctx context.Context, dog *watchdog, body io.Reader, w io.Writer, want int64) (n int64, err error) {
	buf := make([]byte, copyBytes)
	for {
		dog.timer.Reset(silence)
		some, rerr := body.Read(buf)
		dog.timer.Stop()
		if want >= 0 && n+int64(some) > want {
			return n, unsound("more than the %d bytes that were announced", want)
		}
		if some > 0 {
			written, err := w.Write(buf[:some])
			n += int64(written)
			if err != nil {
				return n, fmt.Errorf("write what the guest sent: %w", err)
			}
		}
		switch {
		case rerr == io.EOF && want >= 0 && n < want:
			return n, unsound("%d of %d bytes", n, want)
		case rerr == io.EOF:
			return n, nil
		case rerr != nil:
			return n, here(ctx, rerr)
		}
	}
}

// Upload stores what r has as a file, whole or not at all; it belongs to the user. Folders that are missing are made, and a file that is
// there is replaced. mode is its nine permission bits; nil leaves those of the file that is replaced, or 0644. An error of r is returned
// as it is. Upload does not wait for a Read that is under way when it ends before its reader.
//
// When the guest's answer is lost, nobody knows whether the file was stored.
func (f *Files) Upload(ctx context.Context, path string, r io.Reader, mode *fs.FileMode) error {
	ctx, dog := newWatchdog(ctx)
	defer dog.stop()
	if err := f.check(path); err != nil {
		return err
	}
	body := newSource(ctx, r, dog)
	req, err := f.content(ctx, http.MethodPost, path, mode, body)
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/octet-stream")
	resp, err := f.client.content.Do(req)
	if err != nil {
		if failed := body.failed(); failed != nil {
			return fmt.Errorf("read what to upload: %w", failed)
		}
		return here(ctx, err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return refusedFile(resp)
	}
	answer, err := readAnswer(resp.Body)
	if err != nil {
		return here(ctx, err)
	}
	var stored []struct{ Name, Path, Type string }
	if err := json.Unmarshal(answer, &stored); err != nil || len(stored) != 1 || stored[0].Type != "file" {
		return unsound("it stored something else than one file")
	}
	if !body.ended() {
		return unsound("it stored a file before it had the whole of it")
	}
	return nil
}

// statuses are the kinds of error that statuses stand for.
var statuses = map[int]error{
	http.StatusBadRequest: errs.ErrInvalid, http.StatusUnauthorized: errs.ErrUnauthenticated, http.StatusForbidden: errs.ErrPermissionDenied,
	http.StatusNotFound: errs.ErrNotFound, http.StatusConflict: errs.ErrAlreadyExists,
	http.StatusMethodNotAllowed: errs.ErrFailedPrecondition, http.StatusTooManyRequests: errs.ErrResourceExhausted,
	http.StatusInsufficientStorage: errs.ErrResourceExhausted,
}

// refusedFile reads the reason of an answer that was no. Its status alone says what kind it is.
func refusedFile(resp *http.Response) error {
	err := refused("file", resp)
	kind, ok := statuses[resp.StatusCode]
	if !ok {
		kind = errs.ErrUnavailable
	}
	return &guestError{kind: kind, text: err.Error()}
}

// here is why a transfer failed: this side's reason, if it has one.
func here(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	var known *guestError
	if errors.As(err, &known) {
		return err
	}
	return broken(err)
}
