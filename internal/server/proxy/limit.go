package proxy

import "sync"

// maxUnderWay bounds how many requests to one sandbox are under way at once. It is as many as connections that the agent makes.
const maxUnderWay = 512

// limit counts what is under way, by sandbox.
type limit struct {
	most int

	mu    sync.Mutex
	count map[string]int
}

func newLimit(most int) *limit { return &limit{most: most, count: map[string]int{}} }

// enter counts one more until done is called. It is false when there are too many.
func (l *limit) enter(sandbox string) (done func(), ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.count[sandbox] >= l.most {
		return nil, false
	}
	l.count[sandbox]++
	return func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		if l.count[sandbox]--; l.count[sandbox] == 0 {
			delete(l.count, sandbox)
		}
	}, true
}
