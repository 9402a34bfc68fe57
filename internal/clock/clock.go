package clock

import "time"

// Reading is one look at a clock.
type Reading struct {
	// Mono is in ms since shortly before the clock was made: always more than 0, and never going back.
	Mono int64
	// Wall is in ms since 1970 (UTC). It may go anywhere.
	Wall int64
}

// Clock tells a node the time. Its methods may be used concurrently.
type Clock struct {
	origin time.Time // with the monotonic reading that all of Mono is measured from
	wall   func() time.Time
}

// New returns a clock whose wall clock is wall: time.Now, except in tests.
func New(wall func() time.Time) *Clock {
	return &Clock{origin: time.Now().Add(-time.Millisecond), wall: wall}
}

// Now returns what the wall clock shows. Differences of two such times are no durations.
func (c *Clock) Now() time.Time { return c.wall().Round(0) }

// Mono returns Reading.Mono alone.
func (c *Clock) Mono() int64 { return c.At(time.Now()) }

// Read looks at both clocks.
func (c *Clock) Read() Reading { return Reading{Mono: c.Mono(), Wall: c.wall().UnixMilli()} }

// At returns where t, a time made from time.Now such as a context's deadline, is on Mono.
func (c *Clock) At(t time.Time) int64 { return t.Sub(c.origin).Milliseconds() }
