package rest

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"
)

// Server serves a door. It reads the requests that place orders itself, as long as they are as plain as clients mostly send them:
// that costs half of what net/http does. With the first request of a connection that is anything else, the connection goes to
// net/http, with all that was read of it, and stays there.
//
//	accept ──▶ lane: POST /v1/orders, whole and plain ──▶ door
//	             └── anything else ──▶ net/http ──▶ door
//
// So the strictness of the lane is not that of the server: what it does not know, net/http judges.
type Server struct {
	*http.Server
	place http.Handler // nil when the handler is no door
	log   *slog.Logger

	dates    atomic.Pointer[dated] // the field Date of this second
	draining atomic.Bool
	mu       sync.Mutex
	lanes    map[*lane]struct{}
	empty    chan struct{} // closed when the server drains and has no lanes
}

const (
	readHeaderTimeout = 5 * time.Second
	idleTimeout       = 2 * time.Minute
	maxHeaderBytes    = 32 << 10
)

// Server returns an HTTP server for the handler that [New] made, with timeouts that no slow client outlasts. There is no
// ReadTimeout: net/http would end the context of a request that waits for its saga; bodies have their own deadline.
func (c Config) Server(h http.Handler, log *slog.Logger) *Server {
	s := &Server{log: log, lanes: make(map[*lane]struct{}), empty: make(chan struct{}), Server: &http.Server{
		Handler:           h,
		ReadHeaderTimeout: readHeaderTimeout,
		WriteTimeout:      c.MaxWait + c.RequestTimeout + 20*time.Second, // streams move their own deadline
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}}
	if d, ok := h.(*door); ok {
		s.place = d.place
	}
	return s
}

// Serve accepts connections until Shutdown or Close, and returns http.ErrServerClosed then.
func (s *Server) Serve(l net.Listener) error {
	if s.place == nil {
		return s.Server.Serve(l)
	}
	base := context.Background()
	if s.BaseContext != nil {
		base = s.BaseContext(l)
	}
	h := &handover{Listener: l, conns: make(chan net.Conn), errs: make(chan error), closed: make(chan struct{})}
	var accepting sync.WaitGroup
	accepting.Go(func() { s.accept(base, h) })
	err := s.Server.Serve(h)
	_ = h.Close() // it mostly is, and what else could be done?
	accepting.Wait()
	return err
}

// accept puts every connection on a lane. What goes wrong is for net/http, which pauses or gives up.
func (s *Server) accept(base context.Context, h *handover) {
	for {
		conn, err := h.Listener.Accept()
		if err == nil {
			if c := s.enter(base, conn); c != nil {
				go s.drive(c, h) // until its end, which Shutdown waits for, or the handover
			}
			continue
		}
		select {
		case h.errs <- err:
		case <-h.closed:
			return
		}
	}
}

// enter makes a lane of a connection, nil when the server has begun to drain.
func (s *Server) enter(base context.Context, conn net.Conn) *lane {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.draining.Load() {
		_ = conn.Close()
		return nil
	}
	c := newLane(base, conn, s)
	s.lanes[c] = struct{}{}
	return c
}

func (s *Server) leave(c *lane) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.lanes, c)
	s.noteEmpty()
}

func (s *Server) noteEmpty() {
	if s.draining.Load() && len(s.lanes) == 0 {
		select {
		case <-s.empty:
		default:
			close(s.empty)
		}
	}
}

// drive serves a lane's requests until one is not for it, or the connection ends.
func (s *Server) drive(c *lane, h *handover) {
	handed := false
	defer func() {
		if p := recover(); p != nil && p != http.ErrAbortHandler { //nolint:errorlint // that is how net/http compares
			s.log.Error("lane panicked", "err", fmt.Sprint(p), "stack", string(debug.Stack()))
		}
		c.release()
		s.leave(c)
		if !handed {
			_ = c.conn.Close()
		}
	}()
	for s.wait(c) {
		if !c.parse() {
			handed = h.take(c)
			return
		}
		c.serve(s.place)
		if c.answer() != nil || c.closes {
			return
		}
	}
}

// wait lets a lane be idle until there are bytes of a request; false is the end of it.
func (s *Server) wait(c *lane) bool {
	if c.n > 0 { // the next request has come along
		return !s.draining.Load()
	}
	c.state.Store(laneIdle)
	if s.draining.Load() { // this or the sweep of Shutdown: one of them sees the other
		return false
	}
	return c.fill() == nil && c.state.CompareAndSwap(laneIdle, laneBusy)
}

// Shutdown ends idle connections at once and the others after the answer under way. It waits for them until ctx ends.
func (s *Server) Shutdown(ctx context.Context) error {
	s.drain(func(c *lane) bool { return c.state.CompareAndSwap(laneIdle, laneClosed) })
	err := s.Server.Shutdown(ctx)
	select {
	case <-s.empty:
	case <-ctx.Done():
		err = errors.Join(err, ctx.Err())
	}
	return err
}

// Close ends all connections at once.
func (s *Server) Close() error {
	s.drain(func(*lane) bool { return true })
	return s.Server.Close()
}

func (s *Server) drain(closes func(*lane) bool) {
	s.draining.Store(true)
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.lanes {
		if closes(c) {
			_ = c.conn.Close()
		}
	}
	s.noteEmpty()
}

// handover is the listener that net/http serves: it gives the connections that leave their lane.
type handover struct {
	net.Listener
	conns  chan net.Conn
	errs   chan error
	once   sync.Once
	closed chan struct{}
}

func (h *handover) Accept() (net.Conn, error) {
	select {
	case c := <-h.conns:
		return c, nil
	case err := <-h.errs:
		return nil, err
	case <-h.closed:
		return nil, net.ErrClosed
	}
}

// Close closes the listener below.
func (h *handover) Close() error {
	var err error
	h.once.Do(func() {
		close(h.closed)
		err = h.Listener.Close()
	})
	return err
}

// take gives a lane's connection to net/http; false when that has stopped.
func (h *handover) take(c *lane) bool {
	if c.conn.SetDeadline(time.Time{}) != nil { // net/http sets its own
		return false
	}
	select {
	case h.conns <- &replayed{c.conn, c.buf[:c.n]}:
		return true
	case <-h.closed:
		return false
	}
}

// replayed is a connection of which something has been read already.
type replayed struct {
	net.Conn
	read []byte
}

func (r *replayed) Read(b []byte) (int, error) {
	if len(r.read) == 0 {
		return r.Conn.Read(b)
	}
	n := copy(b, r.read)
	if r.read = r.read[n:]; len(r.read) == 0 {
		r.read = nil
	}
	return n, nil
}
