// Package hlc is the hybrid logical clock: timestamps that follow the wall clock and never go back.
//
// A Time holds milliseconds since 1970 in its upper 48 bits and a counter in its lower 16. A clock that
// has seen a later timestamp than its wall clock shows counts on from there, so causes come before
// effects across nodes whose clocks disagree. Kulkarni et al., "Logical Physical Clocks", 2014.
package hlc

import "time"

// Time is a hybrid timestamp. The zero Time is before all others.
type Time uint64

// FromMillis returns the first Time of a millisecond since 1970 (UTC).
func FromMillis(ms int64) Time { return Time(uint64(ms) << 16) }

// Millis returns the milliseconds since 1970 (UTC).
func (t Time) Millis() int64 { return int64(t >> 16) }

// Time returns t as a wall-clock time in UTC, without its counter.
func (t Time) Time() time.Time { return time.UnixMilli(t.Millis()).UTC() }

// Clock makes timestamps. It reads no clock itself: callers pass what their wall clock shows. Not for concurrent use.
type Clock struct{ last Time }

// Next returns a Time after all that the clock has made or seen, at or after wallMillis.
func (c *Clock) Next(wallMillis int64) Time {
	c.last = max(c.last+1, FromMillis(wallMillis))
	return c.last
}

// See moves the clock past a timestamp made elsewhere.
func (c *Clock) See(t Time) { c.last = max(c.last, t) }

// Last returns the latest Time made or seen.
func (c *Clock) Last() Time { return c.last }
