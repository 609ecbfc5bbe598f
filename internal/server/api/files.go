package api

import (
	"context"
	"fmt"
	"time"

	"wrenn.dev/wrenn/internal/server/rest"
	pb "wrenn.dev/wrenn/proto/hostagent/v1"
)

var fileTypes = map[pb.FileType]rest.FileType{
	pb.FileType_FILE_TYPE_FILE: rest.FileTypeFile, pb.FileType_FILE_TYPE_DIRECTORY: rest.FileTypeDirectory,
	pb.FileType_FILE_TYPE_SYMLINK: rest.FileTypeSymlink, pb.FileType_FILE_TYPE_UNSPECIFIED: rest.FileTypeOther,
}

func toFile(f *pb.File) rest.File {
	out := rest.File{Name: f.GetName(), Path: f.GetPath(), Inexact: given(f.GetInexact()), Type: fileTypes[f.GetType()],
		Mode: fmt.Sprintf("%04o", f.GetMode()&0o777), Size: int64(f.GetSize()), Owner: f.GetOwner(), Group: f.GetGroup(),
		SymlinkTarget: given(f.GetSymlinkTarget())}
	if t := f.GetModified(); t != nil {
		at := toTime(t.AsTime())
		out.ModifiedAt = &at
	}
	return out
}

// toTime is a time that a guest tells, within the years that JSON has.
func toTime(t time.Time) time.Time {
	first, last := time.Unix(0, 0).UTC(), time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC)
	switch {
	case t.Before(first):
		return first
	case t.After(last):
		return last
	}
	return t.UTC()
}

// StatFile implements rest.StrictServerInterface.
func (s *server) StatFile(ctx context.Context, r rest.StatFileRequestObject) (rest.StatFileResponseObject, error) {
	sb, err := s.Control.Running(ctx, team(ctx), r.ID)
	if err != nil {
		return nil, err
	}
	f, err := sb.StatFile(ctx, or(r.Params.User, ""), r.Params.Path)
	if err != nil {
		return nil, err
	}
	return rest.StatFile200JSONResponse(toFile(f)), nil
}

// ListFiles implements rest.StrictServerInterface.
func (s *server) ListFiles(ctx context.Context, r rest.ListFilesRequestObject) (rest.ListFilesResponseObject, error) {
	sb, err := s.Control.Running(ctx, team(ctx), r.ID)
	if err != nil {
		return nil, err
	}
	list, err := sb.ListFiles(ctx, or(r.Params.User, ""), r.Params.Path, uint32(or(r.Params.Depth, 1)))
	if err != nil {
		return nil, err
	}
	answer := rest.ListFiles200JSONResponse{Files: make([]rest.File, len(list))}
	for i, f := range list {
		answer.Files[i] = toFile(f)
	}
	return answer, nil
}

// MakeDir implements rest.StrictServerInterface.
func (s *server) MakeDir(ctx context.Context, r rest.MakeDirRequestObject) (rest.MakeDirResponseObject, error) {
	sb, err := s.Control.Running(ctx, team(ctx), r.ID)
	if err != nil {
		return nil, err
	}
	if err := sb.MakeDir(ctx, or(r.Body.User, ""), r.Body.Path); err != nil {
		return nil, err
	}
	return rest.MakeDir204Response{}, nil
}

// MoveFile implements rest.StrictServerInterface.
func (s *server) MoveFile(ctx context.Context, r rest.MoveFileRequestObject) (rest.MoveFileResponseObject, error) {
	sb, err := s.Control.Running(ctx, team(ctx), r.ID)
	if err != nil {
		return nil, err
	}
	if err := sb.MoveFile(ctx, or(r.Body.User, ""), r.Body.From, r.Body.To); err != nil {
		return nil, err
	}
	return rest.MoveFile204Response{}, nil
}

// RemoveFile implements rest.StrictServerInterface.
func (s *server) RemoveFile(ctx context.Context, r rest.RemoveFileRequestObject) (rest.RemoveFileResponseObject, error) {
	sb, err := s.Control.Running(ctx, team(ctx), r.ID)
	if err != nil {
		return nil, err
	}
	if err := sb.RemoveFile(ctx, or(r.Body.User, ""), r.Body.Path); err != nil {
		return nil, err
	}
	return rest.RemoveFile204Response{}, nil
}
