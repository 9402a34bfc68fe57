package main

import (
	"encoding/xml"
	"errors"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

func someResult() *result {
	r := &result{
		Again: "go run ./test/nemesis --seed 7", Seed: 7, Nodes: 3, Minutes: 1, Rate: 50, Network: "loopback", Orders: 12345, Skipped: map[string]string{"delay": "no netem"}, Passed: true,
		Faults: []faultResult{
			{Kind: killNode, Nodes: []int{2}, Began: 6, Ended: 9, Whole: 10.5, Sent: 200, InTime: 199},
			{Kind: provider, Began: 12, Ended: 13, Whole: 13},
			{Kind: partition, Nodes: []int{1}, Text: "1 | 2, 3 <script>", Began: 50, Ended: 60, Whole: -1},
		},
		Stalls: []stall{{20, 20.5}}, elections: []election{{7 * time.Second, "order/0", 3, 1}}, length: time.Minute,
	}
	for i := range 3000 {
		r.samples = append(r.samples, sample{Begin: time.Duration(i) * 20 * time.Millisecond, Took: 30 * time.Millisecond, Answered: i%7 != 0})
	}
	r.add("keys", "Keys are linearizable", "10 operations", nil)
	return r
}

func render(t *testing.T, r *result) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "report.html")
	if err := writeReport(file, r); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func TestReportOfAGoodRun(t *testing.T) {
	html := render(t, someResult())
	for _, want := range []string{"Every promise was kept", "12\u202f345", "Keys are linearizable", "--seed 7", "no netem", "1 | 2, 3 &lt;script&gt;", "got no processor for 500 ms", "order/0, term 3"} {
		if !strings.Contains(html, want) {
			t.Errorf("the report does not say %q", want)
		}
	}
	for _, not := range []string{"<script>", "BROKEN", "http://", "https://", "NaN", "ZgotmplZ"} {
		if strings.Contains(html, not) {
			t.Errorf("the report has %q", not)
		}
	}
	picture := regexp.MustCompile(`(?s)<svg.*?</svg>`).FindString(html)
	d := xml.NewDecoder(strings.NewReader(picture))
	for {
		if _, err := d.Token(); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatalf("the picture is not well formed: %v", err)
		}
	}
	if strings.Count(picture, "<circle") != 1 || strings.Count(picture, `class="proc"`) != 1 {
		t.Error("an election or a kill is not drawn")
	}
}

func TestReportOfABrokenRunSaysWhat(t *testing.T) {
	r := someResult()
	r.Passed, r.Pictures = false, []string{"nemesis-3.html"}
	var many []string
	for range maxNamed + 5 {
		many = append(many, "r1: order <b> is lost")
	}
	r.add("orders", "Every order is there", "", many)
	html := render(t, r)
	for _, want := range []string{"1 of 2 promises broken", "r1: order &lt;b&gt; is lost", "and 5 more", `<a href="nemesis-3.html">`} {
		if !strings.Contains(html, want) {
			t.Errorf("the report does not say %q", want)
		}
	}
	if strings.Contains(html, "Every promise was kept") {
		t.Error("a broken run looks like a good one")
	}
	// A run that saw nothing has a report all the same.
	render(t, &result{Nodes: 5})
}

func TestPercentNeverRoundsUpToAll(t *testing.T) {
	for share, want := range map[float64]string{1: "100\u00a0%", 0.9999999: "99.999\u00a0%", 0.98765: "98.8\u00a0%", 0: "0.0\u00a0%"} {
		if got := percent(share); got != want {
			t.Errorf("percent(%v) = %s, want %s", share, got, want)
		}
	}
}
