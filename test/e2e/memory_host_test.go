//go:build hosttest

package e2e

import (
	"fmt"
	"os"
	"testing"
)

// marked is a program for a guest that marks pages of both parts of its memory, below and above the hole at 4 GiB, as the kernel says where they are. It answers as
// the holder does.
const marked = `
import mmap, os, socket, struct
PAGE, PAGES = 4096, 45000
memory = mmap.mmap(-1, PAGE * PAGES)
memory.madvise(mmap.MADV_NOHUGEPAGE)
marks = [PAGES + page for page in range(PAGES)]
for page in range(PAGES):
    memory[page * PAGE:page * PAGE + 8] = struct.pack('Q', marks[page])

def wrong():
    return sum(struct.unpack_from('Q', memory, page * PAGE)[0] != marks[page] for page in range(PAGES))

def spread():
    import ctypes
    start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    above = 0
    with open('/proc/self/pagemap', 'rb') as f:
        f.seek(start // PAGE * 8)
        for entry in struct.unpack('%dQ' % PAGES, f.read(8 * PAGES)):
            above += (entry & (1 << 55) - 1) * PAGE >= 4 << 30
    return '%d %d' % (above, PAGES - above)

def change():
    global marks
    marks = [2 * PAGES + page if page % 3 == 0 else mark for page, mark in enumerate(marks)]
    for page in range(0, PAGES, 3):
        memory[page * PAGE:page * PAGE + 8] = struct.pack('Q', marks[page])

answers = {'wrong': wrong, 'spread': spread, 'change': change}
server = socket.create_server(('', 7000))
print(1, flush=True)
while True:
    c, _ = server.accept()
    with c, c.makefile('rw') as f:
        for line in f:
            f.write(str(answers[line.strip()]()) + '\n')
            f.flush()
`

// TestMoreThanThreeGiB freezes a machine whose memory is in two parts: with more than 3.25 GiB, what lies above the hole comes back. With
// WRENN_CHAOS it does so twice, and so does what changed there in between: that takes minutes, since Firecracker is made to write all of the memory
// where its diff files would be wrong.
func TestMoreThanThreeGiB(t *testing.T) {
	nothingLeft(t)
	b := keptProgram(t, marked, "--cold", "--memory", "3456M", "--user", "root")
	var above, below int
	if _, err := fmt.Sscan(b.ask("spread")[0], &above, &below); err != nil || above < 1000 || below < 1000 {
		t.Fatalf("%d pages above and %d below the hole, %v: the test looks at one part only", above, below, err)
	}
	generations := 1
	if os.Getenv("WRENN_CHAOS") != "" {
		generations = 2
	}
	for generation := range generations {
		b.ask("change")
		r := wrenn(t, "pause", "--progress", b.id).want(t, 0)
		t.Log(r.errOut)
		wrenn(t, "resume", b.id).want(t, 0)
		if wrong := b.ask("wrong")[0]; wrong != "0" {
			t.Errorf("generation %d: %s pages are wrong", generation, wrong)
		}
	}
}
