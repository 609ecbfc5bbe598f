package machine

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"wrenn.dev/wrenn/internal/errs"
)

func TestParseForward(t *testing.T) {
	for _, tt := range []struct {
		in   string
		want Forward // zero: refused
	}{
		{"8080:80", Forward{8080, 80}},
		{"1:65535", Forward{1, 65535}},
		{"8080", Forward{}},
		{"0:80", Forward{}},
		{"80:0", Forward{}},
		{"65536:80", Forward{}},
		{"-1:80", Forward{}},
		{"0.0.0.0:8080:80", Forward{}},
		{"", Forward{}},
	} {
		got, err := ParseForward(tt.in)
		if tt.want == (Forward{}) {
			if !errors.Is(err, errs.ErrInvalid) {
				t.Errorf("%q: %v, %v", tt.in, got, err)
			}
			continue
		}
		if err != nil || got != tt.want || got.String() != tt.in {
			t.Errorf("%q: %v, %v", tt.in, got, err)
		}
	}
}

// after returns the arguments that follow each occurrence of a flag.
func after(args []string, flag string) []string {
	var values []string
	for i, a := range args[:len(args)-1] {
		if a == flag {
			values = append(values, args[i+1])
		}
	}
	return values
}

func TestArguments(t *testing.T) {
	args := Config{
		Kernel: "/k", Initrd: "/i", Memory: 4096,
		Disks:      []Disk{{Serial: "root", Path: "/root,1.img"}, {Serial: "bin", Path: "/bin.img", ReadOnly: true}, {Serial: "kept", Path: "/kept", Kept: true}},
		Parameters: []string{"a=b", "c"},
		Forwards:   []Forward{{8080, 80}, {2222, 22}},
	}.args()
	for flag, want := range map[string][]string{
		"-machine": {"q35"}, "-accel": {"tcg,thread=multi"}, "-cpu": {"EPYC,+svm,+npt,+invtsc"}, "-smp": {"1"}, "-m": {"4096"},
		"-kernel": {"/k"}, "-initrd": {"/i"},
		"-append": {"quiet panic=-1 tsc=reliable clocksource=tsc console=ttyS0 a=b c"},
		"-netdev": {"user,id=net,ipv6=off,hostfwd=tcp:127.0.0.1:8080-:80,hostfwd=tcp:127.0.0.1:2222-:22"},
		"-drive": {
			"if=none,id=root,format=raw,file=/root,,1.img,snapshot=on,cache=unsafe,discard=unmap",
			"if=none,id=bin,format=raw,file=/bin.img,readonly=on",
			"if=none,id=kept,format=raw,file=/kept,cache=writeback,discard=unmap",
		},
	} {
		if got := after(args, flag); !slices.Equal(got, want) {
			t.Errorf("%s: %q, want %q", flag, got, want)
		}
	}
	if !slices.Contains(args, "-no-reboot") {
		t.Error("a dead kernel would boot again instead of ending QEMU")
	}
	devices := strings.Join(after(args, "-device"), "\n")
	root, bin := strings.Index(devices, "drive=root"), strings.Index(devices, "drive=bin")
	if root < 0 || bin < root {
		t.Errorf("the root disk is not the first:\n%s", devices)
	}
	for _, port := range []string{"kvmhost.heartbeat", "kvmhost.control"} {
		if !strings.Contains(devices, "virtserialport,chardev="+port+",name="+port) {
			t.Errorf("no port %s", port)
		}
	}
}

func TestLostReport(t *testing.T) {
	lost := &Lost{Reason: "no sign of life for 1m0s", Log: "the last words", Registers: "RIP=0\n"}
	for _, part := range []string{"no sign of life", "the last words", "RIP=0"} {
		if !strings.Contains(lost.Report(), part) {
			t.Errorf("%q is not in %q", part, lost.Report())
		}
	}
	if strings.Contains((&Lost{Reason: "x"}).Report(), "CPU") {
		t.Error("a report without registers speaks of them")
	}
}

func TestTailKeepsTheEnd(t *testing.T) {
	var log tail
	for range 100 {
		if n, err := log.Write([]byte(strings.Repeat("x", 999) + "\n")); n != 1000 || err != nil {
			t.Fatal(n, err)
		}
	}
	_, _ = log.Write([]byte("the end\r\n"))
	if s := log.String(); len(s) > tailSize || !strings.HasSuffix(s, "\nthe end") {
		t.Errorf("%d bytes, the end is %q", len(s), s[len(s)-10:])
	}
}
