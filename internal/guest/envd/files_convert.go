package envd

import (
	"google.golang.org/protobuf/types/known/timestamppb"

	"wrenn.dev/wrenn/internal/guest/envd/filesystem"
	filesystempb "wrenn.dev/wrenn/proto/envd/filesystem"
)

var entryTypes = map[filesystem.Type]filesystempb.FileType{
	filesystem.File: filesystempb.FileType_FILE_TYPE_FILE, filesystem.Directory: filesystempb.FileType_FILE_TYPE_DIRECTORY,
	filesystem.Symlink: filesystempb.FileType_FILE_TYPE_SYMLINK,
}

// entry is what is known of a file, as the protocol has it.
func entry(e *filesystem.Entry) *filesystempb.EntryInfo {
	return &filesystempb.EntryInfo{
		Name: e.Name, Path: e.Path, Type: entryTypes[e.Type], Size: e.Size, Mode: e.Mode, Permissions: e.Permissions,
		Owner: e.Owner, Group: e.Group, ModifiedTime: timestamppb.New(e.Modified), SymlinkTarget: e.Target, Metadata: e.Metadata,
	}
}

var eventTypes = map[filesystem.EventType]filesystempb.EventType{
	filesystem.Created: filesystempb.EventType_EVENT_TYPE_CREATE, filesystem.Written: filesystempb.EventType_EVENT_TYPE_WRITE,
	filesystem.Removed: filesystempb.EventType_EVENT_TYPE_REMOVE, filesystem.Renamed: filesystempb.EventType_EVENT_TYPE_RENAME,
	filesystem.Chmodded: filesystempb.EventType_EVENT_TYPE_CHMOD,
}

// change is an event of a watch, as the protocol has it.
func change(e *filesystem.Event) *filesystempb.FilesystemEvent {
	pb := &filesystempb.FilesystemEvent{Name: e.Name, Type: eventTypes[e.Type]}
	if e.Entry != nil {
		pb.Entry = entry(e.Entry)
	}
	return pb
}
