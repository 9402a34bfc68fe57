package reject

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write docs/errors.md")

// TestErrorsAreDocumented holds docs/errors.md to the codes; go test ./internal/reject -update writes it.
func TestErrorsAreDocumented(t *testing.T) {
	var b strings.Builder
	b.WriteString("# Error codes\n\nEvery error is an `application/problem+json` (RFC 9457) with one of these codes. Codes are permanent: never renamed, never\n" +
		"reused. `retryable` in the body says whether the same request, with the same `Idempotency-Key`, may succeed later.\n\n" +
		"| Code | Status | Cause | Remedy |\n|---|---|---|---|\n")
	for _, c := range Codes() {
		fmt.Fprintf(&b, "| <a id=\"%s\"></a>`%s` | %d | %s | %s |\n", c.Code, c.Code, c.Status, c.Cause, c.Remedy)
	}
	const path = "../../docs/errors.md"
	if *update {
		if err := os.WriteFile(path, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != b.String() {
		t.Error("docs/errors.md does not list the codes as they are: go test ./internal/reject -update")
	}
}
