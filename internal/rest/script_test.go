package rest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"

	"hanse/internal/reject"
)

// TestScripts plays the scripts of testdata: a request, and what the backend was asked and the client got. Whatever the
// client gets is held to the types of types.go. -rewrite writes the answers.
//
//	request [pending] [replayed] [brief] [refuse=(code,field)] [fail=code] [fault] [order]
//	METHOD /target
//	Header: value
//
//	body
//	----
//
// The options say how the backend answers; brief leaves a body out that another script shows.
func TestScripts(t *testing.T) {
	served := map[string]bool{}
	datadriven.Walk(t, "testdata/scripts", func(t *testing.T, path string) {
		door, f := newDoor(t, nil)
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			if d.Cmd != "request" {
				d.Fatalf(t, "unknown command %q", d.Cmd)
			}
			f.err, f.order, f.pending, f.replayed = nil, nil, d.HasArg("pending"), d.HasArg("replayed")
			f.asked.Reset()
			if d.HasArg("refuse") {
				var code, field string
				d.ScanArgs(t, "refuse", &code)
				if d.HasArg("field") {
					d.ScanArgs(t, "field", &field)
				}
				f.err = &reject.Rejection{Code: code, Field: field, Detail: "the backend says why"}
			}
			if d.HasArg("fail") {
				var code string
				d.ScanArgs(t, "fail", &code)
				f.err = &reject.Failure{Code: code, Detail: "shard order/1 has no leader", RetryAfter: 1200 * time.Millisecond}
			}
			if d.HasArg("fault") {
				f.err = errors.New("disk: secret path is broken")
			}
			if d.HasArg("order") {
				f.order = sampleOrder()
			}
			return play(t, d, door, f, served)
		})
	})
	if t.Failed() {
		return
	}
	for _, rt := range (&server{backend: &fake{}}).routes() {
		// Streams, and what differs from one build to the next, have tests of their own.
		if !served[rt.name] && !rt.stream && rt.name != "version" && rt.name != "metrics" {
			t.Errorf("no script asks for %s %s (%s)", rt.method, rt.path, rt.name)
		}
	}
}

func play(t *testing.T, d *datadriven.TestData, door http.Handler, f *fake, served map[string]bool) string {
	head, body, _ := strings.Cut(d.Input, "\n\n")
	lines := strings.Split(head, "\n")
	method, target, _ := strings.Cut(lines[0], " ")
	target = strings.NewReplacer("ORDER", orderID, "PAYMENT", paymentID, "HOLD", holdID).Replace(target)
	var headers []string
	for _, line := range lines[1:] {
		name, value, _ := strings.Cut(line, ": ")
		headers = append(headers, name, value)
	}
	w := ask(door, method, target, body, headers...)

	u, err := url.Parse(target)
	if err != nil {
		d.Fatalf(t, "target: %v", err)
	}
	if rt := routeOf(method, u.EscapedPath()); rt != nil {
		if w.Code < 300 {
			served[rt.name] = true
		}
		if err := conformsTo(rt, w); err != nil {
			d.Fatalf(t, "answer is not what the route promises: %v\n%s", err, w.Body)
		}
	}
	var out strings.Builder
	for line := range strings.Lines(f.asked.String()) {
		out.WriteString("-> " + line)
	}
	fmt.Fprintf(&out, "%d\n", w.Code)
	for _, name := range slices.Sorted(maps.Keys(w.Header())) {
		value := strings.Join(w.Header()[name], ", ")
		if name != "Content-Length" && name != "X-Request-Id" && name != "Trace-Id" && (name != "Content-Type" || value != "application/json") {
			fmt.Fprintf(&out, "%s: %s\n", name, value)
		}
	}
	if d.HasArg("brief") || w.Body.Len() == 0 {
		return out.String()
	}
	var indented bytes.Buffer
	if strings.HasSuffix(w.Header().Get("Content-Type"), "json") {
		if err := json.Indent(&indented, w.Body.Bytes(), "", " "); err != nil {
			d.Fatalf(t, "body is no JSON: %v: %s", err, w.Body)
		}
	} else {
		fmt.Fprintf(&indented, "%q", w.Body)
	}
	out.WriteString(indented.String() + "\n")
	return out.String()
}

// conformsTo holds an answer to its row of the table: status, media type, members.
func conformsTo(rt *route, w *httptest.ResponseRecorder) error {
	mediaType := w.Header().Get("Content-Type")
	if w.Code >= 400 && rt.name != "readyz" {
		if mediaType != "application/problem+json" {
			return fmt.Errorf("an error of type %q", mediaType)
		}
		var p Problem
		if err := json.Unmarshal(w.Body.Bytes(), &p); err != nil {
			return err
		}
		if p.Status != w.Code || p.Title == p.Code {
			return fmt.Errorf("problem says %d %q", p.Status, p.Title)
		}
		if err := conforms(w.Body.Bytes(), reflect.TypeFor[Problem]()); err != nil {
			return err
		}
		return description().check("Problem", w.Body.Bytes())
	}
	want := rt.status
	if want == 0 {
		want = http.StatusOK
	}
	switch {
	case w.Code == http.StatusNotModified, w.Code == http.StatusServiceUnavailable:
		return nil
	case w.Code != want && !(rt.waits && w.Code == http.StatusAccepted):
		return fmt.Errorf("status %d, the table says %d", w.Code, want)
	case rt.out != nil:
		if err := conforms(w.Body.Bytes(), reflect.TypeOf(rt.out)); err != nil {
			return err
		}
		return description().check(reflect.TypeOf(rt.out).Name(), w.Body.Bytes())
	case rt.outType != "" && !strings.HasPrefix(mediaType, rt.outType):
		return fmt.Errorf("media type %q, the table says %q", mediaType, rt.outType)
	}
	return nil
}

// Scripts are named after what they tell; each directory entry must be played.
func TestScriptsExist(t *testing.T) {
	files, err := filepath.Glob("testdata/scripts/*")
	if err != nil || len(files) < 8 {
		t.Fatalf("testdata/scripts has %d files (%v), want those of all routes", len(files), err)
	}
}

// A call and its buffers are reused: requests at once must not see each other's.
func TestRequestsAtOnceKeepApart(t *testing.T) {
	door, _ := newDoor(t, nil)
	var all sync.WaitGroup
	for g := range 8 {
		all.Go(func() {
			for i := range 50 {
				customer := fmt.Sprintf("c-%d-%d", g, i)
				w := httptest.NewRecorder()
				r := httptest.NewRequest("GET", "/v1/keyspaces/ks/keys/"+customer, nil)
				r.Header.Set("Idempotency-Key", customer)
				r.Method = "PUT"
				door.ServeHTTP(w, r)
				var k KeyWritten
				if err := json.Unmarshal(w.Body.Bytes(), &k); err != nil || k.Key != customer {
					t.Errorf("PUT of %s is answered %d %s", customer, w.Code, w.Body)
					return
				}
			}
		})
	}
	all.Wait()
}
