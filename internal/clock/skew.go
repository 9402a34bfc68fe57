package clock

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Skew is how wrong a clock is.
type Skew struct {
	// Offset is what it shows too much, or too little when negative.
	Offset time.Duration
	// Drift is what it gains on top, in millionths of the time since it has this skew.
	Drift float64
}

// ParseSkew reads an offset, a drift or both: "+150ms", "-2s,drift=500ppm", "drift=-20ppm".
func ParseSkew(s string) (k Skew, err error) {
	for i, part := range strings.Split(strings.TrimSpace(s), ",") {
		switch text, isDrift := strings.CutPrefix(part, "drift="); {
		case isDrift:
			number, isPPM := strings.CutSuffix(text, "ppm")
			if k.Drift, err = strconv.ParseFloat(number, 64); err != nil || !isPPM || !(k.Drift > -1e6 && k.Drift < 1e6) {
				return Skew{}, fmt.Errorf("drift %q: want parts per million, such as 500ppm", text)
			}
		case i == 0:
			if k.Offset, err = time.ParseDuration(part); err != nil {
				return Skew{}, fmt.Errorf("offset %q: want a duration, such as +150ms or -2s", part)
			}
		default:
			return Skew{}, fmt.Errorf("%q: want drift=500ppm", part)
		}
	}
	return k, nil
}

func (k Skew) after(elapsed time.Duration) time.Duration {
	return k.Offset + time.Duration(k.Drift/1e6*float64(elapsed))
}

// rereadSkew is how often the file of a skewed clock is looked at.
const rereadSkew = 100 * time.Millisecond

// Skewed returns a wall clock that is wrong as spec says: what [ParseSkew] reads, or @ and the path of a file that has it. The
// file is read again every 100 ms, so that a clock can be made to jump; while it says nothing sensible, the skew stays.
func Skewed(spec string) (func() time.Time, error) {
	c := &skewed{since: time.Now()}
	var err error
	if path, isFile := strings.CutPrefix(spec, "@"); isFile {
		c.path, c.looked = path, c.since
		c.skew, err = readSkew(path)
	} else {
		c.skew, err = ParseSkew(spec)
	}
	if err != nil {
		return nil, err
	}
	return c.now, nil
}

func readSkew(path string) (Skew, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return Skew{}, err
	}
	return ParseSkew(string(data))
}

// skewed is a wall clock that is wrong.
type skewed struct {
	path string // of the file that says how wrong, or empty

	mu     sync.Mutex
	skew   Skew
	since  time.Time // it has this skew
	looked time.Time // into the file, last
}

func (c *skewed) now() time.Time {
	now := time.Now()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.path != "" && now.Sub(c.looked) >= rereadSkew {
		c.looked = now
		if k, err := readSkew(c.path); err == nil && k != c.skew { // else it is being written
			c.skew, c.since = k, now
		}
	}
	return now.Add(c.skew.after(now.Sub(c.since)))
}
