package cli

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"hanse/internal/dev"
)

// text is written by a command and read by its test.
type text struct {
	mu   sync.Mutex
	b    strings.Builder
	seen chan struct{} // closed at the first line that holds want
	want string
}

func (w *text) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	before := strings.Contains(w.b.String(), w.want)
	w.b.Write(p)
	if !before && strings.Contains(w.b.String(), w.want) {
		close(w.seen)
	}
	return len(p), nil
}

func (w *text) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.b.String()
}

func TestEventsAreFollowedUntilInterrupted(t *testing.T) {
	var requests []string
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		requests = append(requests, r.URL.RawQuery+" "+r.Header.Get("Last-Event-ID")) // one request at a time
		first := len(requests)
		fmt.Fprintf(w, ": following\nid: 0:%d\n\nid: 0:%d\ndata: {\"id\":\"ord_%d.1\",\"type\":\"order.placed\",\"order_id\":\"ord_%d\",\"timestamp\":\"2026-05-04T12:30:15.123Z\",\"data\":{\"n\":%d}}\n\n",
			first-1, first, first, first, first)
		if first == 2 {
			http.NewResponseController(w).Flush()
			<-r.Context().Done()
		}
	}))
	defer s.Close()
	for _, test := range []struct {
		args []string
		want string
	}{
		{nil, "12:30:15.123  order.placed               ord_1  {\"n\":1}\n12:30:15.123  order.placed               ord_2  {\"n\":2}\n"},
		{[]string{"--json"}, `{"position":"0:1","event":{"id":"ord_1.1","type":"order.placed","order_id":"ord_1","version":0,"timestamp":"2026-05-04T12:30:15.123Z","sequence":0,"data":{"n":1}}}
{"position":"0:2","event":{"id":"ord_2.1","type":"order.placed","order_id":"ord_2","version":0,"timestamp":"2026-05-04T12:30:15.123Z","sequence":0,"data":{"n":2}}}
`},
	} {
		requests = nil
		ctx, interrupt := context.WithCancel(t.Context())
		out, errOut := &text{seen: make(chan struct{}), want: "ord_2"}, new(strings.Builder)
		ended := make(chan int)
		go func() {
			ended <- Run(ctx, append([]string{"events", "--types", "order.*", "--after", "start", "--addr", s.URL}, test.args...), nil, out, errOut)
		}()
		<-out.seen
		interrupt()
		if code := <-ended; code != exitDone || errOut.String() != "" {
			t.Errorf("exit %d, %q", code, errOut)
		}
		if out.String() != test.want {
			t.Errorf("it printed\n%swant\n%s", out, test.want)
		}
		if got := strings.Join(requests, ", "); got != "after=start&types=order.%2A , types=order.%2A 0:1" {
			t.Errorf("it asked for %s", got)
		}
	}
}

func TestTheProviderRunsUntilInterrupted(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	var out, errOut strings.Builder
	if code := Run(t.Context(), []string{"psp", "--listen", addr}, nil, &out, &errOut); code != exitRefused || !strings.Contains(errOut.String(), "listen on "+addr) {
		t.Errorf("on a port that is taken: exit %d, %s", code, errOut.String())
	}
	l.Close()
	ctx, interrupt := context.WithCancel(t.Context())
	defer interrupt()
	log := &text{seen: make(chan struct{}), want: "provider started"}
	ended := make(chan int)
	go func() { ended <- Run(ctx, []string{"psp", "--listen", addr, "--data", t.TempDir()}, nil, &out, log) }()
	if err := dev.WaitReady(ctx, "http://"+addr+"/readyz"); err != nil {
		t.Fatal(err)
	}
	interrupt()
	if code := <-ended; code != exitDone {
		t.Errorf("exit %d: %s", code, log)
	}
}
