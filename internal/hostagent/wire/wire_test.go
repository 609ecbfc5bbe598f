package wire

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/errs/rpccode"
	hostagentpb "wrenn.dev/wrenn/proto/hostagent/v1"
)

func TestKindsSurvive(t *testing.T) {
	kinds := []error{errs.ErrInvalid, errs.ErrNotFound, errs.ErrAlreadyExists, errs.ErrFailedPrecondition, errs.ErrResourceExhausted,
		errs.ErrUnavailable, errs.ErrUnauthenticated, errs.ErrPermissionDenied, errs.ErrCorrupt, context.DeadlineExceeded, context.Canceled}
	for _, kind := range kinds {
		got := Decode(Encode(fmt.Errorf("outer: %w", fmt.Errorf("inner: %w", kind))))
		if !errors.Is(got, kind) {
			t.Errorf("%v became %v", kind, got)
		}
		if !strings.Contains(got.Error(), "outer: inner") {
			t.Errorf("text %q", got)
		}
		for _, other := range kinds {
			if other != kind && errors.Is(got, other) {
				t.Errorf("%v is %v as well", kind, other)
			}
		}
	}
	var fe *errs.FieldError
	if got := Decode(Encode(fmt.Errorf("x: %w", errs.Field("f", "p", "do")))); !errors.As(got, &fe) || *fe != (errs.FieldError{Field: "f", Problem: "p", Fix: "do"}) {
		t.Errorf("%v", got)
	}
	for _, reset := range []error{syscall.EPIPE, syscall.ECONNRESET} { // the library takes them for the caller's own end
		if got := Decode(connect.NewError(connect.CodeCanceled, reset)); !errors.Is(got, errs.ErrUnavailable) || errors.Is(got, context.Canceled) {
			t.Errorf("%v became %v", reset, got)
		}
	}
	if Encode(nil) != nil || Decode(nil) != nil || rpccode.Of(nil) != 0 {
		t.Error("no error became one")
	}
	if got := Decode(Encode(errors.New("odd"))); got == nil || rpccode.Of(got) != connect.CodeInternal {
		t.Errorf("%v", got)
	}
}

const anID = "cl-0123456789abcdefghij"

func TestBounds(t *testing.T) {
	long := strings.Repeat("x", 300)
	for field, msg := range map[string]proto.Message{
		"id":              &hostagentpb.GetRequest{},
		"idempotency_key": &hostagentpb.CreateRequest{IdempotencyKey: long},
		"vcpus":           &hostagentpb.CreateRequest{Vcpus: 33},
		"disk_bytes":      &hostagentpb.CreateRequest{DiskBytes: 1 << 63},
		"on_expiry":       &hostagentpb.CreateRequest{OnExpiry: 9},
		"labels":          &hostagentpb.CreateRequest{Labels: map[string]string{long: "v"}},
		`labels["k"]`:     &hostagentpb.CreateRequest{Labels: map[string]string{"k": long}},
		"args[1]":         &hostagentpb.ExecRequest{Id: anID, Cmd: "x", Args: []string{"", strings.Repeat("x", 1<<20)}},
		"args":            &hostagentpb.ExecRequest{Id: anID, Cmd: "x", Args: make([]string, 5000)},
		"terminal.cols":   &hostagentpb.ExecRequest{Id: anID, Cmd: "x", Terminal: &hostagentpb.TerminalSize{Cols: 1 << 20}},
		"data":            &hostagentpb.SendInputRequest{Id: anID, Pid: 1, Data: make([]byte, 1<<20)},
		"size":            &hostagentpb.ResizeRequest{Id: anID, Pid: 1},
		"path":            &hostagentpb.StatFileRequest{Id: anID},
		"user":            &hostagentpb.MakeDirRequest{Id: anID, Path: "x", User: long},
		"start.mode": &hostagentpb.WriteFileRequest{Part: &hostagentpb.WriteFileRequest_Start_{
			Start: &hostagentpb.WriteFileRequest_Start{Id: anID, Path: "x", Mode: new(uint32(0o7777))}}},
		"offset": &hostagentpb.ReadFileRequest{Id: anID, Path: "x", Offset: 1 << 63},
		"ids[0]": &hostagentpb.StatsRequest{Ids: []string{"x"}},
	} {
		var fe *errs.FieldError
		if err := Check(msg); !errors.As(err, &fe) || fe.Field != field || fe.Fix == "" {
			t.Errorf("%s: %v", field, err)
		}
	}
	for _, id := range []string{"cl-", "../../etc/passwd", anID + "x", anID + "\n", "CL-0123456789ABCDEFGHIJ"} {
		if err := Check(&hostagentpb.GetRequest{Id: id}); !errors.Is(err, errs.ErrInvalid) {
			t.Errorf("%q: %v", id, err)
		}
	}
	for _, msg := range []proto.Message{&hostagentpb.CreateRequest{Vcpus: 32, Labels: map[string]string{"k": "v"}},
		&hostagentpb.GetRequest{Id: anID}, &hostagentpb.EventsRequest{}, &hostagentpb.StatusRequest{}} {
		if err := Check(msg); err != nil {
			t.Error(err)
		}
	}
}

// TestEveryRequestIsBounded looks at every string, list and map that a caller can send.
func TestEveryRequestIsBounded(t *testing.T) {
	seen := 0
	services := hostagentpb.File_hostagent_v1_hostagent_proto.Services()
	for i := range services.Len() {
		methods := services.Get(i).Methods()
		for j := range methods.Len() {
			fields := methods.Get(j).Input().Fields()
			for k := range fields.Len() {
				seen++
				unbounded(t, fields.Get(k))
			}
		}
	}
	if seen < 40 {
		t.Fatalf("saw %d fields", seen)
	}
}

func unbounded(t *testing.T, fd protoreflect.FieldDescriptor) {
	t.Helper()
	b := boundsOf(fd)
	if b != nil && b.GetPattern() != "" {
		if _, err := regexp.Compile(b.GetPattern()); err != nil {
			t.Errorf("%s: %v", fd.FullName(), err)
		}
	}
	if fd.Message() != nil && !fd.IsMap() {
		for i := range fd.Message().Fields().Len() {
			unbounded(t, fd.Message().Fields().Get(i))
		}
	}
	switch {
	case fd.Kind() == protoreflect.StringKind || fd.Kind() == protoreflect.BytesKind || fd.IsMap():
		if b == nil || b.GetMaxBytes() == 0 && b.GetPattern() == "" {
			t.Errorf("%s has no bound of its size", fd.FullName())
		}
	}
	if (fd.IsList() || fd.IsMap()) && (b == nil || b.GetMaxItems() == 0) {
		t.Errorf("%s has no bound of its items", fd.FullName())
	}
}

// TestABrokenConnection is one that ends while the request is written.
func TestABrokenConnection(t *testing.T) {
	if err := Decode(connect.NewError(connect.CodeUnknown, syscall.EPIPE)); !errors.Is(err, errs.ErrUnavailable) {
		t.Error(err)
	}
}
