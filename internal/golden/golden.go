// Package golden compares what a test makes with a file of what it made before: for whatever is better read as a whole than asserted
// piece by piece.
package golden

import (
	"os"
	"strings"
	"testing"
)

// Compare fails the test at the first line in which got is not what the file holds. HANSE_GOLDEN=write writes the file anew.
func Compare(t *testing.T, path, got string) {
	t.Helper()
	if os.Getenv("HANSE_GOLDEN") == "write" {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if n := difference(got, string(want)); n > 0 {
		t.Fatalf("%s differs from line %d on; HANSE_GOLDEN=write shows the difference in the file", path, n)
	}
}

// difference returns the first line, from 1, in which two texts differ; 0 when they are the same.
func difference(a, b string) int {
	if a == b {
		return 0
	}
	as, bs := strings.Split(a, "\n"), strings.Split(b, "\n")
	for n := range min(len(as), len(bs)) {
		if as[n] != bs[n] {
			return n + 1
		}
	}
	return min(len(as), len(bs)) + 1
}
