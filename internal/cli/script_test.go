package cli

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"
)

// door answers as a script says, and keeps what it was asked.
type door struct {
	mu      sync.Mutex
	answers map[string][]scripted // by method and path; the last one stays
	asked   []string
}

type scripted struct {
	status int
	header http.Header
	body   string
}

var drawnKey = regexp.MustCompile(`^[0-9a-f]{32}$`)

func (d *door) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	d.mu.Lock()
	defer d.mu.Unlock()
	line := "> " + r.Method + " " + r.URL.RequestURI()
	switch key := r.Header.Get("Idempotency-Key"); {
	case drawnKey.MatchString(key):
		line += " (drawn key)"
	case key != "":
		line += " (key " + key + ")"
	}
	for _, name := range []string{"If-Match", "If-None-Match", "Last-Event-Id"} {
		if v := r.Header.Get(name); v != "" {
			line += " " + name + ": " + v
		}
	}
	if len(body) > 0 {
		line += " " + string(body)
	}
	d.asked = append(d.asked, line)
	var a scripted
	if all := d.answers[r.Method+" "+r.URL.Path]; len(all) > 0 {
		a = all[0]
		if len(all) > 1 {
			d.answers[r.Method+" "+r.URL.Path] = all[1:]
		}
	} else {
		a = scripted{404, http.Header{}, `{"code":"not_found","status":404,"detail":"nothing is at ` + r.URL.Path + `"}`}
	}
	for name, values := range a.header {
		w.Header()[name] = values
	}
	w.WriteHeader(a.status)
	_, _ = io.WriteString(w, a.body)
}

var word = regexp.MustCompile(`'[^']*'|\S+`)

// TestScripts runs the command lines of testdata against a door that answers as the script says:
//
//	answer: METHOD PATH STATUS [Header: value], then the body
//	then: the same, for the request after that
//	run: a command line, then its standard input; gives requests (>), output, errors (!) and exit code
func TestScripts(t *testing.T) {
	t.Setenv("HANSE_ADDR", "")
	t.Setenv("USER", "ann")
	datadriven.Walk(t, "testdata", func(t *testing.T, path string) {
		d := &door{answers: make(map[string][]scripted)}
		s := httptest.NewServer(d)
		defer s.Close()
		addr := strings.TrimPrefix(s.URL, "http://")
		datadriven.RunTest(t, path, func(t *testing.T, td *datadriven.TestData) string {
			first, rest, _ := strings.Cut(td.Input, "\n")
			switch td.Cmd {
			case "answer", "then":
				parts := strings.SplitN(first, " ", 4)
				status, err := strconv.Atoi(parts[2])
				if err != nil {
					td.Fatalf(t, "status: %v", err)
				}
				a := scripted{status, http.Header{}, rest}
				if len(parts) == 4 {
					name, value, _ := strings.Cut(parts[3], ": ")
					a.header.Set(name, value)
				}
				if td.Cmd == "answer" {
					d.answers[parts[0]+" "+parts[1]] = nil
				}
				d.answers[parts[0]+" "+parts[1]] = append(d.answers[parts[0]+" "+parts[1]], a)
				return ""
			case "run":
				var args []string
				for _, w := range word.FindAllString(first, -1)[1:] {
					args = append(args, strings.ReplaceAll(strings.Trim(w, "'"), "ADDR", addr))
				}
				if !strings.Contains(first, "--addr") {
					args = append([]string{"--addr", addr}, args...)
				}
				d.asked = nil
				var out, errOut bytes.Buffer
				code := (&app{in: strings.NewReader(rest), out: &out, err: &errOut, poll: time.Millisecond, now: func() time.Time { return time.Time{} }}).run(t.Context(), args)
				var b strings.Builder
				for _, line := range d.asked {
					fmt.Fprintln(&b, line)
				}
				b.Write(out.Bytes())
				if out.Len() > 0 && !bytes.HasSuffix(out.Bytes(), []byte("\n")) {
					b.WriteString("(no end of line)\n")
				}
				for line := range strings.Lines(errOut.String()) {
					b.WriteString("! " + line)
				}
				fmt.Fprintf(&b, "exit %d\n", code)
				text := strings.ReplaceAll(b.String(), addr, "ADDR")
				text = regexp.MustCompile(`[0-9a-f]{32}`).ReplaceAllString(text, "DRAWN")
				return regexp.MustCompile(` +\n`).ReplaceAllString(text, "\n") // editors would take blanks away
			}
			td.Fatalf(t, "unknown command %s", td.Cmd)
			return ""
		})
	})
}

func TestEveryCommandIsHelped(t *testing.T) {
	var out, errOut bytes.Buffer
	a := &app{out: &out, err: &errOut}
	root := a.root()
	for _, c := range root.Commands() {
		if c.Short == "" {
			t.Errorf("hanse %s says nothing of itself", c.Name())
		}
		for _, sub := range c.Commands() {
			if sub.Short == "" {
				t.Errorf("hanse %s %s says nothing of itself", c.Name(), sub.Name())
			}
		}
	}
	// The names that scripts rely on.
	for _, line := range []string{
		"dev", "dev kill", "dev stop", "dev start", "dev status", "serve", "psp",
		"order place", "order get", "order list", "order cancel", "order fulfill", "order return", "order refund", "order events", "order explain",
		"stock receive", "stock adjust", "stock get", "stock track", "payment get", "payment list",
		"saga list", "saga show", "saga retry", "saga resolve", "node list", "node show", "node drain", "node decommission", "node activate",
		"node replace", "node forget", "node token", "node events", "node down-after", "shard list", "shard move", "shard recover",
		"kv put", "kv get", "kv del", "kv cas", "replay", "audit", "bench", "version", "events",
	} {
		c, _, err := root.Find(strings.Fields(line))
		if err != nil || c.CommandPath() != "hanse "+line {
			t.Errorf("hanse %s: %v", line, err)
			continue
		}
		if c.InheritedFlags().Lookup("json") == nil || c.InheritedFlags().Lookup("addr") == nil {
			t.Errorf("hanse %s has no --json or no --addr", line)
		}
	}
}

func TestHelpIsAboutWhatThereIs(t *testing.T) {
	for _, test := range []struct {
		line string
		code int
		want string // in what is printed, or in the complaint
	}{
		{"nope --help", exitUsage, `unknown command "nope" for "hanse"`},
		{"help nope", exitUsage, `unknown command "nope" for "hanse"`},
		{"help order nope", exitUsage, `unknown command "nope" for "hanse order"`},
		{"order nope --help", exitUsage, `unknown command "nope" for "hanse order"`},
		{"ordr --help", exitUsage, "did you mean order?"},
		{"help", exitDone, "Exit codes"},
		{"--help", exitDone, "Exit codes"},
		{"", exitDone, "Exit codes"},
		{"help order", exitDone, "hanse order [command]"},
		{"order --help", exitDone, "hanse order [command]"},
		{"help order get", exitDone, "hanse order get ORDER"},
		{"order get ord_1 --help", exitDone, "hanse order get ORDER"},
		{"dev --help", exitDone, "--http-port"},
		{"dev nope --help", exitUsage, `unknown command "nope" for "hanse dev"`},
		{"--version", exitDone, "hanse " + Version},
		{"--version --json", exitDone, `"version": "` + Version + `"`},
	} {
		var out, errOut bytes.Buffer
		code := Run(t.Context(), strings.Fields(test.line), nil, &out, &errOut)
		said := &out
		if test.code != exitDone {
			said = &errOut
		}
		if code != test.code || !strings.Contains(said.String(), test.want) || test.code != exitDone && out.Len() > 0 {
			t.Errorf("hanse %s: exit %d, want %d and %q\n%s%s", test.line, code, test.code, test.want, &out, &errOut)
		}
	}
}

func TestInterruptionIsNoFailureOfTheCluster(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		<-r.Context().Done()
	}))
	defer s.Close()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var out, errOut bytes.Buffer
	code := Run(ctx, []string{"order", "get", "ord_1", "--addr", strings.TrimPrefix(s.URL, "http://")}, nil, &out, &errOut)
	if code != exitRefused || errOut.String() != "hanse: interrupted\n" {
		t.Errorf("exit %d, %q", code, errOut.String())
	}
}
