package reject

import (
	"os"
	"regexp"
	"testing"
)

// Every constant of this package must be in the table, once, with a status and both sentences.
func TestEveryCodeIsDescribed(t *testing.T) {
	source, err := os.ReadFile("reject.go")
	if err != nil {
		t.Fatal(err)
	}
	declared := regexp.MustCompile(`(?m)^\t\w+ += "([a-z_]+)"$`).FindAllSubmatch(source, -1)
	if len(declared) < 40 {
		t.Fatalf("found %d declared codes in the source, want all of them", len(declared))
	}
	seen := map[string]int{}
	for _, c := range Codes() {
		seen[c.Code]++
		if c.Status < 400 || c.Status > 599 || c.Cause == "" || c.Remedy == "" {
			t.Errorf("code %q is not described: %+v", c.Code, c)
		}
	}
	for _, m := range declared {
		if n := seen[string(m[1])]; n != 1 {
			t.Errorf("code %q is listed %d times, want once", m[1], n)
		}
	}
	if len(seen) != len(declared) {
		t.Errorf("%d codes are listed, %d declared", len(seen), len(declared))
	}
}
