package rest

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// lanes is a server in a bubble, and what it has handed to net/http.
type lanes struct {
	*Server
	pipes  *pipes
	fake   *fake
	handed atomic.Int32
	done   chan error
}

func serveLanes(t *testing.T, change func(*Config)) *lanes {
	cfg := DefaultConfig()
	if change != nil {
		change(&cfg)
	}
	door, f := newDoor(t, change)
	return serve(t, cfg.Server(door, newDiscard()), f)
}

func serve(t *testing.T, server *Server, f *fake) *lanes {
	s := &lanes{Server: server, pipes: newPipes(), fake: f, done: make(chan error, 1)}
	s.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			s.handed.Add(1)
		}
	}
	go func() { s.done <- s.Serve(s.pipes) }()
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		if err := <-s.done; !errors.Is(err, http.ErrServerClosed) {
			t.Errorf("Serve = %v", err)
		}
	})
	return s
}

// peer is a client's end of a connection: it reads all the time and keeps what came.
type peer struct {
	net.Conn
	mu     sync.Mutex
	got    []byte
	closed bool
}

func (s *lanes) dialed(t *testing.T) *peer {
	conn, err := s.pipes.dial(t.Context(), "", "")
	if err != nil {
		t.Fatal(err)
	}
	p := &peer{Conn: conn}
	go func() {
		b := make([]byte, 1024)
		for {
			n, err := conn.Read(b)
			p.mu.Lock()
			p.got, p.closed = append(p.got, b[:n]...), err != nil
			p.mu.Unlock()
			if err != nil {
				return
			}
		}
	}()
	t.Cleanup(func() { conn.Close() })
	return p
}

// say sends bytes and returns what has come when nothing moves any more, and whether the server has closed.
func (p *peer) say(b ...string) (string, bool) {
	go func() {
		for _, b := range b {
			if b == "" { // would be a read of nothing at the other end of a pipe
				continue
			}
			_, _ = p.Write([]byte(b)) // the server may have gone
		}
	}()
	synctest.Wait()
	p.mu.Lock()
	defer p.mu.Unlock()
	got := string(p.got)
	p.got = nil
	return got, p.closed
}

// posted is a request that places the small order.
func posted(headers ...string) string {
	return "POST /v1/orders HTTP/1.1\r\nHost: hanse\r\n" + strings.Join(append(headers, ""), "\r\n") +
		"Content-Length: " + strconv.Itoa(len(smallOrder)) + "\r\n\r\n" + smallOrder
}

var (
	drawnID    = regexp.MustCompile(`req_[0-9a-f]{16}`)
	drawnTrace = regexp.MustCompile(`(Trace-Id: |"trace":")[0-9a-f]{32}`)
)

// redact gives what is drawn for each request the same value, as long as it was, and keeps what a request has brought.
func redact(got string) string {
	got = drawnID.ReplaceAllString(got, "req_0123456789abcdef")
	return drawnTrace.ReplaceAllStringFunc(got, func(trace string) string {
		if strings.HasSuffix(trace, testTrace) {
			return trace
		}
		return trace[:len(trace)-32] + strings.Repeat("0", 32)
	})
}

// answers reads responses as a client does, without what differs from one time to the next, and in one order.
func answers(t *testing.T, got string) (all []string) {
	r := bufio.NewReader(strings.NewReader(redact(got)))
	for {
		if _, err := r.Peek(1); err != nil {
			return all
		}
		resp, err := http.ReadResponse(r, nil)
		if err != nil {
			return append(all, "broken: "+err.Error())
		}
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			return append(all, "broken: "+err.Error())
		}
		if resp.Header.Get("Date") == "" && resp.StatusCode < 400 && resp.StatusCode >= 200 {
			t.Errorf("an answer without Date: %q", got)
		}
		resp.Header.Del("Date")
		var b bytes.Buffer
		if err := resp.Header.Write(&b); err != nil {
			t.Fatal(err)
		}
		all = append(all, resp.Proto+" "+resp.Status+" close "+strconv.FormatBool(resp.Close)+"\n"+b.String()+string(body))
	}
}

// requests are what the lane and net/http must answer alike, and whether net/http is asked.
var requests = map[string]struct {
	say    []string
	handed bool
}{
	"plain":              {[]string{posted("Idempotency-Key: k")}, false},
	"a trace":            {[]string{posted("Idempotency-Key: k", "traceparent: 00-"+testTrace+"-00f067aa0ba902b7-01")}, false},
	"usual headers":      {[]string{posted("idempotency-key: \"k\"", "User-Agent: curl/8", "Accept: */*", "Content-Type: application/json", "Connection: keep-alive", "X-Request-ID: mine")}, false},
	"again":              {[]string{posted("Idempotency-Key: k"), posted("Idempotency-Key: k")}, false},
	"pipelined":          {[]string{posted("Idempotency-Key: k") + posted("Idempotency-Key: l")}, false},
	"pipelined, in part": {[]string{posted("Idempotency-Key: k") + posted("Idempotency-Key: l")[:30], posted("Idempotency-Key: l")[30:]}, true},
	"in two parts":       {[]string{posted("Idempotency-Key: k")[:100], posted("Idempotency-Key: k")[100:]}, true},
	"two keys":           {[]string{posted("Idempotency-Key: k", "Idempotency-Key: l")}, false},
	"the key twice":      {[]string{posted("Idempotency-Key: k", "idempotency-Key: k")}, false},
	"no key":             {[]string{posted()}, false},
	"spaces":             {[]string{posted("Idempotency-Key:   k  ")}, false},
	"a tab":              {[]string{posted("Idempotency-Key:\tk")}, true},
	"an empty key":       {[]string{posted("Idempotency-Key:")}, false},
	"a folded line":      {[]string{posted("Idempotency-Key: k", " l")}, true},
	"a space in a name":  {[]string{posted("Idempotency-Key : k")}, true},
	"asynchronous":       {[]string{posted("Idempotency-Key: k", "Prefer: respond-async")}, false},
	"caller":             {[]string{posted("Idempotency-Key: k", "Authorization: Bearer x"), posted("Idempotency-Key: k")}, false},
	"closing":            {[]string{posted("Idempotency-Key: k", "Connection: close")}, true},
	"two hosts":          {[]string{posted("Idempotency-Key: k", "Host: other")}, true},
	"no host":            {[]string{strings.Replace(posted("Idempotency-Key: k"), "Host:", "Hast:", 1)}, true},
	"two lengths":        {[]string{posted("Idempotency-Key: k", "Content-Length: 1")}, true},
	"length not known":   {[]string{posted("Idempotency-Key: k", "Transfer-Encoding: chunked")}, true},
	"smuggled":           {[]string{posted("Idempotency-Key: k", "transfer-encoding : chunked")}, true},
	"chunked":            {[]string{"POST /v1/orders HTTP/1.1\r\nHost: h\r\nIdempotency-Key: k\r\nTransfer-Encoding: chunked\r\n\r\n" + strconv.FormatInt(int64(len(smallOrder)), 16) + "\r\n" + smallOrder + "\r\n0\r\n\r\n"}, true},
	"expecting":          {[]string{posted("Idempotency-Key: k", "Expect: 100-continue")}, true},
	"no body":            {[]string{"POST /v1/orders HTTP/1.1\r\nHost: h\r\nIdempotency-Key: k\r\nContent-Length: 0\r\n\r\n"}, true},
	"not JSON":           {[]string{strings.Replace(posted("Idempotency-Key: k"), "{", "[", 1)}, false},
	"a wrong value":      {[]string{strings.Replace(posted("Idempotency-Key: k"), `y":1`, `y":0`, 1), posted("Idempotency-Key: k")}, false},
	"HTTP/1.0":           {[]string{strings.Replace(posted("Idempotency-Key: k"), "1.1", "1.0", 1)}, true},
	"another method":     {[]string{strings.Replace(posted("Idempotency-Key: k"), "POST", "PATCH", 1)}, true},
	"a query":            {[]string{strings.Replace(posted("Idempotency-Key: k"), "orders ", "orders? ", 1)}, true},
	"another path":       {[]string{"GET /livez HTTP/1.1\r\nHost: h\r\n\r\n"}, true},
	"another path next":  {[]string{posted("Idempotency-Key: k"), "GET /livez HTTP/1.1\r\nHost: h\r\n\r\n", posted("Idempotency-Key: k")}, true},
	"bare line feeds":    {[]string{strings.ReplaceAll(posted("Idempotency-Key: k"), "\r\n", "\n")}, true},
	"control character":  {[]string{posted("Idempotency-Key: k\x01")}, true},
	"long":               {[]string{posted("Idempotency-Key: k", "Cookie: "+strings.Repeat("x", 2*laneBytes))}, true},
	"too long":           {[]string{posted("Idempotency-Key: k", "Cookie: "+strings.Repeat("x", 3*maxHeaderBytes))}, true},
	"garbage":            {[]string{"\x16\x03\x01\x02"}, true},
}

// alike compares the lane's answers with those of net/http alone.
func alike(t *testing.T, say []string) (handed bool) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		ours := serveLanes(t, nil)
		door, f := newDoor(t, nil)
		plain := serve(t, DefaultConfig().Server(http.HandlerFunc(door.ServeHTTP), newDiscard()), f) // has no lanes
		got, closed := ours.dialed(t).say(say...)
		want, wantClosed := plain.dialed(t).say(say...)
		time.Sleep(time.Second) // net/http is in no hurry to close after some mistakes
		a, b := answers(t, got), answers(t, want)
		if strings.Join(a, "\n---\n") != strings.Join(b, "\n---\n") || closed != wantClosed {
			t.Errorf("%q\nis answered (closed %v)\n%s\nwant, as net/http (closed %v)\n%s", say, closed, strings.Join(a, "\n---\n"), wantClosed, strings.Join(b, "\n---\n"))
		}
		if ours.fake.asked.String() != plain.fake.asked.String() {
			t.Errorf("%q\nasks the backend %q, want %q", say, ours.fake.asked.String(), plain.fake.asked.String())
		}
		handed = ours.handed.Load() > 0
	})
	return handed
}

func TestLaneAnswersAsNetHTTP(t *testing.T) {
	for name, test := range requests {
		t.Run(name, func(t *testing.T) {
			if handed := alike(t, test.say); handed != test.handed {
				t.Errorf("handed to net/http: %v, want %v", handed, test.handed)
			}
		})
	}
}

// A field that a handler reads has to be among those of the lane, unless only other routes read it, or a lane leaves the request to net/http.
func TestLaneKnowsTheFieldsThatAreRead(t *testing.T) {
	others := append([]string{"If-None-Match", "If-Match", "Last-Event-Id", "Hanse-Min-Position"}, hopFields[:]...)
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	reads := regexp.MustCompile(`(?:r\.Header\[|r\.Header\.(?:Get|Values)\(|c\.header\()"([^"]+)"`)
	found := 0
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		source, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range reads.FindAllStringSubmatch(string(source), -1) {
			found++
			if !slices.Contains(laneFields[:], m[1]) && !slices.Contains(others, m[1]) {
				t.Errorf("%s reads the field %s, which a lane does not pass on: add it to laneFields", name, m[1])
			}
		}
	}
	if found < 6 {
		t.Errorf("found %d places where a field is read, want at least 6: does the pattern still fit?", found)
	}
}

func FuzzLane(f *testing.F) {
	for _, r := range requests {
		f.Add(strings.Join(r.say, ""))
	}
	f.Fuzz(func(t *testing.T, say string) { alike(t, []string{say}) })
}

// A request under way is answered, with the news that it was the last; what is idle ends at once.
func TestLanesDrain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := serveLanes(t, nil)
		idle, busy := s.dialed(t), s.dialed(t)
		idle.say(posted("Idempotency-Key: k"))
		s.fake.block = make(chan struct{})
		busy.say(posted("Idempotency-Key: l"))
		ended := make(chan error, 1)
		go func() { ended <- s.Shutdown(t.Context()) }()
		if _, closed := idle.say(); !closed {
			t.Error("an idle connection is open while the server drains")
		}
		if len(ended) > 0 {
			t.Error("Shutdown does not wait for a request")
		}
		close(s.fake.block)
		got, closed := busy.say()
		if a := answers(t, got); !closed || len(a) != 1 || !strings.HasPrefix(a[0], "HTTP/1.1 201 Created close true") {
			t.Errorf("the request under way is answered %q, closed %v", a, closed)
		}
		if err := <-ended; err != nil {
			t.Errorf("Shutdown = %v", err)
		}
	})
}

func TestShutdownGivesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := serveLanes(t, nil)
		s.fake.block = make(chan struct{})
		s.dialed(t).say(posted("Idempotency-Key: k"))
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := s.Shutdown(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Shutdown with a request that does not end = %v", err)
		}
		close(s.fake.block)
	})
}

// The requests of clients that have gone do not keep others out.
func TestClientOfALaneGoes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := serveLanes(t, func(c *Config) { c.MaxInFlight = 1 })
		s.fake.block = make(chan struct{})
		p := s.dialed(t)
		p.say(posted("Idempotency-Key: k"))
		p.Close()
		time.Sleep(watchAfter)
		synctest.Wait()
		close(s.fake.block)
		if got, _ := s.dialed(t).say(posted("Idempotency-Key: l")); !strings.HasPrefix(got, "HTTP/1.1 201 ") {
			t.Errorf("the next client gets %q", got)
		}
		if n := len(s.lanes()); n != 1 {
			t.Errorf("%d connections are open, want 1", n)
		}
	})
}

func (s *lanes) lanes() []*lane {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []*lane
	for c := range s.Server.lanes {
		all = append(all, c)
	}
	return all
}

// While a request lasts, the lane looks whether its client is there, and reads what belongs to the next.
func TestRequestWhileOneLasts(t *testing.T) {
	for _, say := range [][]string{
		{posted("Idempotency-Key: l")},
		{posted("Idempotency-Key: l")[:1], posted("Idempotency-Key: l")[1:]},
	} {
		synctest.Test(t, func(t *testing.T) {
			s := serveLanes(t, nil)
			s.fake.block = make(chan struct{})
			p := s.dialed(t)
			p.say(posted("Idempotency-Key: k"))
			time.Sleep(9 * time.Second)
			if got, closed := p.say(say...); got != "" || closed {
				t.Fatalf("before the first is answered: %q, closed %v", got, closed)
			}
			close(s.fake.block)
			got, closed := p.say()
			if a := answers(t, got); len(a) != 2 || closed || !strings.HasPrefix(a[1], "HTTP/1.1 201 ") {
				t.Errorf("answers %q, closed %v, want two", a, closed)
			}
			time.Sleep(idleTimeout - time.Second)
			if got, closed := p.say(posted("Idempotency-Key: m")); closed || !strings.HasPrefix(got, "HTTP/1.1 201 ") {
				t.Errorf("afterwards %q, closed %v", got, closed)
			}
		})
	}
}

// A request may last longer than an idle connection.
func TestLongRequestOnALane(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := serveLanes(t, func(c *Config) { c.Wait, c.MaxWait = 2*idleTimeout, 2*idleTimeout })
		s.fake.block = make(chan struct{})
		p := s.dialed(t)
		p.say(posted("Idempotency-Key: k"))
		time.Sleep(idleTimeout + time.Second)
		close(s.fake.block)
		if got, _ := p.say(); !strings.HasPrefix(got, "HTTP/1.1 201 ") {
			t.Errorf("got %q", got)
		}
	})
}

func TestLaneEndsWhenNothingComes(t *testing.T) {
	for name, test := range map[string]struct {
		say   string
		after time.Duration
	}{
		"from the beginning": {"", readHeaderTimeout},
		"after an order":     {posted("Idempotency-Key: k"), idleTimeout},
		"within a header":    {posted("Idempotency-Key: k")[:40], readHeaderTimeout},
		"within a body":      {posted("Idempotency-Key: k")[:100], DefaultConfig().RequestTimeout},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := serveLanes(t, nil).dialed(t)
				if test.say != "" {
					p.say(test.say)
				}
				time.Sleep(test.after - time.Millisecond)
				if _, closed := p.say(); closed {
					t.Errorf("closed before %v", test.after)
				}
				time.Sleep(2 * time.Millisecond)
				if _, closed := p.say(); !closed {
					t.Errorf("open after %v", test.after)
				}
			})
		})
	}
}

// An answer that has begun is not finished after a panic.
func TestPanicOnALane(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := serve(t, DefaultConfig().Server(&door{place: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusCreated)
			panic(http.ErrAbortHandler)
		})}, newDiscard()), nil)
		if got, closed := s.dialed(t).say(posted("Idempotency-Key: k")); got != "" || !closed {
			t.Errorf("got %q, closed %v", got, closed)
		}
	})
}

// Without a length, the answer ends where the connection does.
func TestAnswerWithoutLength(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := serve(t, DefaultConfig().Server(&door{place: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Location", "a\r\nb: c")
			_, _ = io.WriteString(w, "all")
		})}, newDiscard()), nil)
		got, closed := s.dialed(t).say(posted("Idempotency-Key: k"))
		if !strings.HasPrefix(got, "HTTP/1.1 200 OK\r\nLocation: a  b: c\r\n") || !strings.HasSuffix(got, "\r\nConnection: close\r\n\r\nall") || !closed {
			t.Errorf("got %q, closed %v", got, closed)
		}
	})
}

// failing is a listener that fails for a while.
type failing struct {
	*pipes
	left atomic.Int32
}

type passing struct{}

func (passing) Error() string   { return "too many open files" }
func (passing) Timeout() bool   { return false }
func (passing) Temporary() bool { return true }

func (f *failing) Accept() (net.Conn, error) {
	if f.left.Add(-1) >= 0 {
		return nil, passing{}
	}
	return f.pipes.Accept()
}

func TestAcceptGoesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		door, _ := newDoor(t, nil)
		s := &lanes{Server: DefaultConfig().Server(door, newDiscard()), pipes: newPipes()}
		l := &failing{pipes: s.pipes}
		l.left.Store(3)
		done := make(chan error, 1)
		go func() { done <- s.Serve(l) }()
		if got, _ := s.dialed(t).say(posted("Idempotency-Key: k")); !strings.HasPrefix(got, "HTTP/1.1 201 ") {
			t.Errorf("after three errors: %q", got)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		if err := <-done; !errors.Is(err, http.ErrServerClosed) {
			t.Errorf("Serve = %v", err)
		}
	})
}
