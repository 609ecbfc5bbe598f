package wire

import (
	"fmt"
	"regexp"
	"sync"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"wrenn.dev/wrenn/internal/errs"
	hostagentpb "wrenn.dev/wrenn/proto/hostagent/v1"
)

// Check refuses a message with a field outside the bounds that its proto gives it, by an error that names the field and the fix.
func Check(msg proto.Message) error { return check("", msg.ProtoReflect()) }

func check(prefix string, m protoreflect.Message) error {
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		fd := fields.Get(i)
		name := prefix + string(fd.Name())
		if b := boundsOf(fd); b != nil {
			if err := b.field(name, fd, m); err != nil {
				return err
			}
		}
		if fd.Message() != nil && !fd.IsMap() && !fd.IsList() && m.Has(fd) {
			if err := check(name+".", m.Get(fd).Message()); err != nil {
				return err
			}
		}
	}
	return nil
}

type bounds struct{ *hostagentpb.Bounds }

func boundsOf(fd protoreflect.FieldDescriptor) *bounds {
	b, _ := proto.GetExtension(fd.Options(), hostagentpb.E_Bounds).(*hostagentpb.Bounds)
	if b == nil {
		return nil
	}
	return &bounds{b}
}

// field checks one field of a message.
func (b *bounds) field(name string, fd protoreflect.FieldDescriptor, m protoreflect.Message) error {
	value := m.Get(fd)
	if b.GetRequired() && !m.Has(fd) {
		return errs.Field(name, "it is missing", b.fix("give one"))
	}
	switch {
	case fd.IsMap():
		return b.entries(name, fd, value.Map())
	case fd.IsList():
		list := value.List()
		if err := b.count(name, list.Len()); err != nil {
			return err
		}
		for i := range list.Len() {
			if err := b.value(fmt.Sprintf("%s[%d]", name, i), fd, list.Get(i)); err != nil {
				return err
			}
		}
		return nil
	}
	return b.value(name, fd, value)
}

func (b *bounds) entries(name string, fd protoreflect.FieldDescriptor, m protoreflect.Map) (err error) {
	if err := b.count(name, m.Len()); err != nil {
		return err
	}
	m.Range(func(k protoreflect.MapKey, v protoreflect.Value) bool {
		if err = b.value(name, fd.MapKey(), k.Value()); err == nil {
			err = b.value(fmt.Sprintf("%s[%.40q]", name, k.String()), fd.MapValue(), v)
		}
		return err == nil
	})
	return err
}

func (b *bounds) count(name string, n int) error {
	if most := int(b.GetMaxItems()); most > 0 && n > most {
		return errs.Field(name, fmt.Sprintf("it has %d items", n), fmt.Sprintf("give at most %d", most))
	}
	return nil
}

// value checks one value.
func (b *bounds) value(name string, fd protoreflect.FieldDescriptor, v protoreflect.Value) error {
	switch fd.Kind() {
	case protoreflect.StringKind:
		if err := b.size(name, len(v.String())); err != nil {
			return err
		}
		if p := b.GetPattern(); p != "" && v.String() != "" && !compiled(p).MatchString(v.String()) {
			return errs.Field(name, fmt.Sprintf("%.80q does not fit", v.String()), b.fix("give what matches "+p))
		}
	case protoreflect.BytesKind:
		return b.size(name, len(v.Bytes()))
	case protoreflect.EnumKind:
		return b.number(name, int64(v.Enum()))
	case protoreflect.Int32Kind, protoreflect.Int64Kind, protoreflect.Sint32Kind, protoreflect.Sint64Kind:
		return b.number(name, v.Int())
	case protoreflect.Uint32Kind, protoreflect.Uint64Kind:
		return b.number(name, int64(min(v.Uint(), 1<<63-1)))
	}
	return nil
}

func (b *bounds) size(name string, n int) error {
	if most := int(b.GetMaxBytes()); most > 0 && n > most {
		return errs.Field(name, fmt.Sprintf("it has %d bytes", n), fmt.Sprintf("give at most %d", most))
	}
	return nil
}

func (b *bounds) number(name string, n int64) error {
	if n == 0 || b.GetMax() == 0 && b.GetMin() == 0 {
		return nil
	}
	if n < b.GetMin() || n > b.GetMax() {
		return errs.Field(name, fmt.Sprintf("%d is out of range", n), fmt.Sprintf("give %d to %d", b.GetMin(), b.GetMax()))
	}
	return nil
}

func (b *bounds) fix(otherwise string) string {
	if b.GetPatternHelp() != "" {
		return b.GetPatternHelp()
	}
	return otherwise
}

var patterns sync.Map // of those that the proto has, compiled

func compiled(pattern string) *regexp.Regexp {
	if r, ok := patterns.Load(pattern); ok {
		return r.(*regexp.Regexp)
	}
	r := regexp.MustCompile(pattern) // a test compiles them all
	patterns.Store(pattern, r)
	return r
}
