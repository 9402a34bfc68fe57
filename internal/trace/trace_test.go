package trace_test

import (
	"context"
	"strings"
	"testing"

	"hanse/internal/trace"
)

const (
	traceID = "4bf92f3577b34da6a3ce929d0e0e4736"
	valid   = "00-" + traceID + "-00f067aa0ba902b7-01"
)

func TestParse(t *testing.T) {
	for _, good := range []string{valid, valid[:53] + "ff", "cc" + valid[2:], "cc" + valid[2:] + "-what.will.come", "00" + valid[2:]} {
		if id, ok := trace.Parse(good); !ok || id.String() != traceID {
			t.Errorf("Parse(%q) = %v, %v, want %s", good, id, ok, traceID)
		}
	}
	for name, bad := range map[string]string{
		"empty": "", "short": valid[:54], "long for version 00": valid + "-00", "no dash behind a later version": "cc" + valid[2:] + ".01",
		"version ff": "ff" + valid[2:], "upper case": strings.ToUpper(valid), "no hex": strings.Replace(valid, "4b", "4g", 1),
		"zero trace": "00-00000000000000000000000000000000-00f067aa0ba902b7-01", "zero parent": "00-" + traceID + "-0000000000000000-01",
		"other separators": strings.ReplaceAll(valid, "-", "_"), "space": " " + valid[:54], "flags": valid[:53] + "0x",
	} {
		if id, ok := trace.Parse(bad); ok || !id.IsZero() {
			t.Errorf("%s: Parse(%q) = %v, %v, want it refused", name, bad, id, ok)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(valid)
	f.Add("cc" + valid[2:] + "-more")
	f.Fuzz(func(t *testing.T, s string) {
		id, ok := trace.Parse(s)
		if ok == id.IsZero() {
			t.Fatalf("Parse(%q) = %v, %v", s, id, ok)
		}
		if ok && s[3:35] != id.String() {
			t.Fatalf("Parse(%q) = %v, want the digits that it has", s, id)
		}
	})
}

func TestContext_carries_a_trace(t *testing.T) {
	if id := trace.Of(t.Context()); !id.IsZero() || id.String() != "" {
		t.Errorf("trace %v without one", id)
	}
	id := trace.NewID(0, 0)
	if id.IsZero() {
		t.Error("a new ID is zero")
	}
	type other struct{}
	ctx, cancel := context.WithCancel(trace.With(context.WithValue(t.Context(), other{}, 7), id))
	if trace.Of(ctx) != id || ctx.Value(other{}) != 7 {
		t.Errorf("trace %v and value %v, want %v and 7", trace.Of(ctx), ctx.Value(other{}), id)
	}
	cancel()
	if ctx.Err() == nil {
		t.Error("not canceled")
	}
	if n := testing.AllocsPerRun(100, func() { trace.Of(ctx) }); n > 0 {
		t.Errorf("Of allocates %v times", n)
	}
}
