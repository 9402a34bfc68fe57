package cli

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
	"time"
)

func TestTestClock_is_loud(t *testing.T) {
	var out bytes.Buffer
	log := slog.New(slog.NewTextHandler(&out, nil))
	now, err := testClock(log)
	if err != nil || out.Len() > 0 || time.Since(now().Round(0)).Abs() > time.Minute {
		t.Errorf("without the variable: error %v, log %q; want the system's clock and silence", err, &out)
	}
	t.Setenv(testClockVar, "+1h")
	now, err = testClock(log)
	if err != nil || !strings.Contains(out.String(), "level=WARN") || !strings.Contains(out.String(), "tests only") {
		t.Errorf("with the variable: error %v, log %q; want a warning", err, &out)
	}
	if ahead := time.Until(now().Round(0)); ahead < 59*time.Minute {
		t.Errorf("the clock is %v ahead, want an hour", ahead)
	}
	t.Setenv(testClockVar, "an hour")
	if _, err := testClock(log); err == nil || !strings.Contains(err.Error(), testClockVar) {
		t.Errorf("nonsense: error %v, want it to name the variable", err)
	}
}

func TestADiskForTestsIsAnnounced(t *testing.T) {
	var out strings.Builder
	log := slog.New(slog.NewTextHandler(&out, nil))
	t.Setenv(testDiskVar, "")
	if volatile, err := testDisk(log); volatile || err != nil || out.Len() > 0 {
		t.Errorf("without the variable: volatile %v, %v, log %q", volatile, err, out.String())
	}
	t.Setenv(testDiskVar, volatileDisk)
	if volatile, err := testDisk(log); !volatile || err != nil || !strings.Contains(out.String(), testDiskVar) {
		t.Errorf("volatile %v, %v, log %q", volatile, err, out.String())
	}
	t.Setenv(testDiskVar, "tape")
	if _, err := testDisk(log); err == nil || !strings.Contains(err.Error(), volatileDisk) {
		t.Errorf("a disk that there is not: %v", err)
	}
}
