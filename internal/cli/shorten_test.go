package cli

import (
	"strings"
	"testing"
	"unicode/utf8"
)

func TestTextsAreCutBetweenCharacters(t *testing.T) {
	text := strings.Repeat("ü☃", 20)
	for n := range len(text) + 2 {
		got := shorten(text, n)
		if !utf8.ValidString(got) || len(got) > n+len("…") {
			t.Errorf("shorten(%d) = %q", n, got)
		}
	}
	if got := shorten(text, len(text)); got != text {
		t.Errorf("a text that fits was cut: %q", got)
	}
}
