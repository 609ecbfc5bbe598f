//go:build hosttest

package e2e

import (
	"fmt"
	"testing"
)

// marked is a program for a guest that marks pages above and below 3 GiB of its memory, as the kernel says where they are. It answers as
// the holder does.
const marked = `
import mmap, os, socket, struct
PAGE, PAGES = 4096, 45000
memory = mmap.mmap(-1, PAGE * PAGES)
memory.madvise(mmap.MADV_NOHUGEPAGE)
mark = 1

def write(first):
    for page in range(first, PAGES, 2):
        memory[page * PAGE:page * PAGE + 8] = struct.pack('Q', mark * PAGES + page if mark else 0)
    return wanted(first)

def wanted(first):
    wrong = 0
    for page in range(first, PAGES, 2):
        if struct.unpack('Q', memory[page * PAGE:page * PAGE + 8])[0] != (marks[first] * PAGES + page if marks[first] else 0):
            wrong += 1
    return wrong

marks = [1, 1]

def rewrite(value):
    global mark
    marks[0] = mark = value
    return write(0)

def spread():
    import ctypes
    start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    above = 0
    with open('/proc/self/pagemap', 'rb') as f:
        f.seek(start // PAGE * 8)
        for entry in struct.unpack('%dQ' % PAGES, f.read(8 * PAGES)):
            above += (entry & (1 << 55) - 1) * PAGE >= 4 << 30
    return '%d %d' % (above, PAGES - above)

write(0), write(1)
answers = {'wrong': lambda: wanted(0) + wanted(1), 'rewrite': lambda: rewrite(2), 'zero': lambda: rewrite(0), 'spread': spread}
server = socket.create_server(('', 7000))
print(1, flush=True)
while True:
    c, _ = server.accept()
    with c, c.makefile('rw') as f:
        for line in f:
            f.write(str(answers[line.strip()]()) + '\n')
            f.flush()
`

// TestMoreThanThreeGiB freezes a machine whose memory is in two parts: what lies above 3 GiB comes back, in three generations.
func TestMoreThanThreeGiB(t *testing.T) {
	nothingLeft(t)
	b := keptProgram(t, marked, "--cold", "--memory", "3200M", "--user", "root")
	var above, below int
	if _, err := fmt.Sscan(b.ask("spread")[0], &above, &below); err != nil || above < 1000 || below < 1000 {
		t.Fatalf("%d pages above and %d below 3 GiB, %v: the test looks at one part only", above, below, err)
	}
	for _, change := range []string{"wrong", "rewrite", "zero"} {
		b.ask(change)
		wrenn(t, "pause", "--progress", b.id).want(t, 0)
		r := wrenn(t, "resume", b.id).want(t, 0)
		if wrong := b.ask("wrong")[0]; wrong != "0" {
			t.Errorf("after %q and a pause %s pages are wrong\n%s", change, wrong, r.errOut)
		}
	}
}
