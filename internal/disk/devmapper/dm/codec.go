package dm

import (
	"bytes"
	"encoding/binary"
	"fmt"

	"golang.org/x/sys/unix"

	"wrenn.dev/wrenn/internal/errs"
)

// The layout of struct dm_ioctl, which starts every request and answer: version u32[3], then the fields below, then padding
// to headerBytes.
const (
	headerBytes = unix.SizeofDmIoctl
	offSize     = 12 // data_size u32: of header and payload; in an answer, what of it is filled
	offStart    = 16 // data_start u32: where the payload begins
	offTargets  = 20 // target_count u32
	offOpens    = 24 // open_count s32
	offFlags    = 28 // flags u32
	offEvent    = 32 // event_nr u32: in a request, udev's cookie
	offDev      = 40 // dev u64
	offName     = 48
	nameBytes   = 128
	offUUID     = offName + nameBytes
	uuidBytes   = unix.DM_UUID_LEN
)

// The layout of struct dm_target_spec: sector_start u64, length u64, status s32, next u32, target_type[16]. The parameters
// follow it as a string that ends with a zero byte.
const (
	specBytes = unix.SizeofDmTargetSpec
	typeBytes = 16
	align     = 8
)

// interfaceVersion is the oldest of the interface that has all we use; the kernel refuses only a newer one than its own.
var interfaceVersion = [3]uint32{4, 0, 0}

var order = binary.NativeEndian

// request is what one call says.
type request struct {
	name, uuid string // at most one of them, but for DM_DEV_CREATE
	flags      uint32
	event      uint32
	table      []Target
}

// header is what an answer says of a device.
type header struct {
	targets    int
	opens      int32
	flags      uint32
	dev        uint64
	name, uuid string
}

func (h header) info() Info {
	return Info{Name: h.name, UUID: h.uuid, Dev: h.dev, Opens: int(h.opens),
		Live: h.flags&unix.DM_ACTIVE_PRESENT_FLAG != 0, ReadOnly: h.flags&unix.DM_READONLY_FLAG != 0}
}

// encode lays the request out with at least room bytes for the answer. A name that does not fit is ErrInvalid.
func (r request) encode(room int) ([]byte, error) {
	if len(r.name) >= nameBytes || len(r.uuid) >= uuidBytes {
		return nil, fmt.Errorf("device-mapper name %q or uuid %q is too long: %w", r.name, r.uuid, errs.ErrInvalid)
	}
	buf := make([]byte, headerBytes, headerBytes+room)
	for _, t := range r.table {
		spec, err := t.encode()
		if err != nil {
			return nil, err
		}
		buf = append(buf, spec...)
	}
	if missing := headerBytes + room - len(buf); missing > 0 {
		buf = append(buf, make([]byte, missing)...)
	}
	for i, v := range interfaceVersion {
		order.PutUint32(buf[4*i:], v)
	}
	order.PutUint32(buf[offSize:], uint32(len(buf)))
	order.PutUint32(buf[offStart:], headerBytes)
	order.PutUint32(buf[offTargets:], uint32(len(r.table)))
	order.PutUint32(buf[offFlags:], r.flags)
	order.PutUint32(buf[offEvent:], r.event)
	copy(buf[offName:offName+nameBytes], r.name)
	copy(buf[offUUID:offUUID+uuidBytes], r.uuid)
	return buf, nil
}

// encode lays one target out. In a request "next" counts from the start of the target's own struct.
func (t Target) encode() ([]byte, error) {
	if len(t.Type) >= typeBytes || bytes.IndexByte([]byte(t.Params), 0) >= 0 {
		return nil, fmt.Errorf("device-mapper target %q %q: %w", t.Type, t.Params, errs.ErrInvalid)
	}
	size := (specBytes + len(t.Params) + 1 + align - 1) / align * align
	b := make([]byte, size)
	order.PutUint64(b, t.Start)
	order.PutUint64(b[8:], t.Sectors)
	order.PutUint32(b[20:], uint32(size))
	copy(b[24:24+typeBytes], t.Type)
	copy(b[specBytes:], t.Params)
	return b, nil
}

// decode splits an answer into header and payload, and checks that the payload lies in the buffer. An answer without
// payload ends before its start: it does not count the header's padding.
func decode(buf []byte) (header, []byte, error) {
	if len(buf) < headerBytes {
		return header{}, nil, corrupt("a header of %d bytes", len(buf))
	}
	size, start := order.Uint32(buf[offSize:]), order.Uint32(buf[offStart:])
	if uint64(max(start, size)) > uint64(len(buf)) {
		return header{}, nil, corrupt("a payload from %d to %d in %d bytes", start, size, len(buf))
	}
	size = max(start, size)
	return header{
		targets: int(order.Uint32(buf[offTargets:])),
		opens:   int32(order.Uint32(buf[offOpens:])),
		flags:   order.Uint32(buf[offFlags:]),
		dev:     order.Uint64(buf[offDev:]),
		name:    text(buf[offName : offName+nameBytes]),
		uuid:    text(buf[offUUID : offUUID+uuidBytes]),
	}, buf[start:size], nil
}

// decodeDevices reads a list of struct dm_name_list: dev u64, next u32, name. "next" counts from the entry's start; 0 ends
// the list. A first entry without device number means that there is none.
func decodeDevices(b []byte) ([]Device, error) {
	const fixed = 12
	var list []Device
	for len(b) >= fixed {
		dev, next := order.Uint64(b), order.Uint32(b[8:])
		if dev == 0 && len(list) == 0 {
			return nil, nil
		}
		list = append(list, Device{Name: text(b[fixed:]), Dev: dev})
		if next == 0 {
			return list, nil
		}
		if next < fixed || uint64(next) > uint64(len(b)) {
			return nil, corrupt("a device list whose entry is %d bytes", next)
		}
		b = b[next:]
	}
	if len(list) > 0 || len(b) > 0 {
		return nil, corrupt("a device list that is cut off")
	}
	return nil, nil
}

// decodeVersions reads a list of struct dm_target_versions: next u32, version[3] u32, name. "next" counts from the entry's
// start; 0 ends the list.
func decodeVersions(b []byte) ([]Version, error) {
	const fixed = 16
	var list []Version
	for len(b) >= fixed {
		v := Version{Type: text(b[fixed:])}
		for i := range v.Version {
			v.Version[i] = order.Uint32(b[4+4*i:])
		}
		list = append(list, v)
		next := order.Uint32(b)
		if next == 0 {
			return list, nil
		}
		if next < fixed || uint64(next) > uint64(len(b)) {
			return nil, corrupt("a target list whose entry is %d bytes", next)
		}
		b = b[next:]
	}
	if len(list) > 0 || len(b) > 0 {
		return nil, corrupt("a target list that is cut off")
	}
	return nil, nil
}

// decodeTargets reads count targets. In an answer, unlike in a request, "next" counts from the start of the payload.
func decodeTargets(b []byte, count int) ([]Target, error) {
	var list []Target
	at := uint64(0)
	for range count {
		if at > uint64(len(b)) || uint64(len(b))-at < specBytes {
			return nil, corrupt("a table of %d targets in %d bytes", count, len(b))
		}
		s := b[at:]
		list = append(list, Target{Start: order.Uint64(s), Sectors: order.Uint64(s[8:]), Type: text(s[24 : 24+typeBytes]),
			Params: text(s[specBytes:])})
		next := uint64(order.Uint32(s[20:]))
		if next <= at && len(list) < count {
			return nil, corrupt("a table that goes backwards")
		}
		at = next
	}
	return list, nil
}

// text is the string in b up to its first zero byte.
func text(b []byte) string {
	if i := bytes.IndexByte(b, 0); i >= 0 {
		b = b[:i]
	}
	return string(b)
}

func corrupt(format string, args ...any) error {
	return fmt.Errorf("device-mapper answered with "+format+": %w", append(args, errs.ErrCorrupt)...)
}
