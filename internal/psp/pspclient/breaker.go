package pspclient

import (
	"errors"
	"sync"
	"time"
)

const (
	// breakAfter is how many requests in a row may stay without an answer before the breaker opens.
	breakAfter = 5
	// It stays open for firstBreak, twice as long after each failed try, at most maxBreak: well below the pause
	// of a payment that has waited for long, so a provider that is back is soon noticed.
	firstBreak = 500 * time.Millisecond
	maxBreak   = 5 * time.Second
)

var errOpen = errors.New("breaker_open: the provider has not answered several times in a row")

// breaker keeps requests from a provider that does not answer: each would hold a worker for as long as its patience lasts,
// and a provider that struggles is not helped by more of them. Its zero value is closed.
type breaker struct {
	mu       sync.Mutex
	failures int           // in a row
	pause    time.Duration // the latest open period
	until    time.Time     // open until then
	trying   bool          // one request is out to see whether the provider is back
}

// admits reports whether a request may go out now; heard or abandoned has to follow. After an open period that is one at a time.
func (b *breaker) admits(now time.Time) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.failures < breakAfter {
		return true
	}
	if b.trying || now.Before(b.until) {
		return false
	}
	b.trying = true
	return true
}

// heard notes whether an admitted request was answered.
func (b *breaker) heard(now time.Time, answered bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.trying = false
	if answered {
		b.failures, b.pause = 0, 0
		return
	}
	b.failures++
	if b.failures < breakAfter || now.Before(b.until) { // those that were out when it opened do not extend it
		return
	}
	b.pause = min(max(2*b.pause, firstBreak), maxBreak)
	b.until = now.Add(b.pause)
}

// abandoned notes that nobody waited for an admitted request, which says nothing about the provider.
func (b *breaker) abandoned() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.trying = false
}
