package clock_test

import (
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"hanse/internal/clock"
)

func TestParseSkew(t *testing.T) {
	for text, want := range map[string]clock.Skew{
		"+150ms":             {Offset: 150 * time.Millisecond},
		"-2s,drift=500ppm":   {Offset: -2 * time.Second, Drift: 500},
		"drift=-0.5ppm":      {Drift: -0.5},
		" 1h\n":              {Offset: time.Hour},
		"0s,drift=-1000ppm ": {Drift: -1000},
	} {
		if got, err := clock.ParseSkew(text); err != nil || got != want {
			t.Errorf("ParseSkew(%q) = %+v, %v, want %+v", text, got, err, want)
		}
	}
	for _, text := range []string{"", "150", "+1s,500ppm", "+1s,drift=500", "drift=NaNppm", "drift=1e9ppm", "drift=ppm,+1s", "+1s,+2s"} {
		if got, err := clock.ParseSkew(text); err == nil {
			t.Errorf("ParseSkew(%q) = %+v, want an error", text, got)
		}
	}
}

// Whatever the wall clock does, the other goes on.
func TestClock_jumps_on_the_wall_only(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "skew")
		write := func(text string) {
			if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		write("+150ms\n")
		now, err := clock.Skewed("@" + path)
		if err != nil {
			t.Fatal(err)
		}
		c := clock.New(now)
		if c.Mono() <= 0 {
			t.Errorf("Mono begins at %d, want more than 0", c.Mono())
		}
		off := func() time.Duration { return c.Now().Sub(time.Now().Round(0)) }
		if off() != 150*time.Millisecond {
			t.Errorf("off by %v, want 150 ms", off())
		}
		before, deadline := c.Read(), time.Now().Add(5*time.Second)
		write("-2s,drift=500ppm")
		time.Sleep(100 * time.Millisecond)
		after := c.Read()
		if passed := after.Mono - before.Mono; passed != 100 {
			t.Errorf("%d ms passed on Mono, want 100", passed)
		}
		if passed := after.Wall - before.Wall; passed != 100-2150 {
			t.Errorf("%d ms passed on Wall, want it 2.15 s back", passed)
		}
		if left := c.At(deadline) - after.Mono; left != 4900 {
			t.Errorf("%d ms left of a deadline, want 4900", left)
		}
		time.Sleep(10 * time.Second)
		if want := -2*time.Second + 5*time.Millisecond; off() != want {
			t.Errorf("off by %v after 10 s, want %v", off(), want)
		}
		write("garbage") // as one that is being written
		time.Sleep(10 * time.Second)
		if want := -2*time.Second + 10*time.Millisecond; off() != want {
			t.Errorf("off by %v after the file was spoilt, want it to go on to %v", off(), want)
		}
	})
}

func TestSkewed_needs_something_sensible(t *testing.T) {
	for _, spec := range []string{"soon", "@", "@" + filepath.Join(t.TempDir(), "none")} {
		if _, err := clock.Skewed(spec); err == nil {
			t.Errorf("Skewed(%q): no error", spec)
		}
	}
	now, err := clock.Skewed("-1h")
	if err != nil {
		t.Fatal(err)
	}
	if off := time.Since(now().Round(0)); off < time.Hour {
		t.Errorf("off by %v, want an hour", off)
	}
}
