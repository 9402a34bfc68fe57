package grpctransport

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"hanse/internal/transport"
)

// sender carries the messages of one class to one peer.
type sender struct {
	cfg     *Config
	to      transport.NodeID
	class   transport.Class
	address string
	queue   *queue
	log     *slog.Logger

	sentBytes atomic.Uint64
	connected atomic.Bool // changed under mu

	mu       sync.Mutex
	process  uint64
	refused  bool
	stranger bool
	err      string
}

func newSender(cfg *Config, to transport.NodeID, class transport.Class, address string) *sender {
	return &sender{
		cfg: cfg, to: to, class: class, address: address,
		queue: newQueue(cfg.QueueBytes[class]),
		log:   cfg.Log.With("peer", uint64(to), "class", class.String(), "address", address),
		err:   "not connected yet",
	}
}

// run connects and sends until ctx ends.
func (s *sender) run(ctx context.Context) {
	pause := s.cfg.MinBackoff
	for {
		began := time.Now()
		err := s.stream(ctx)
		if ctx.Err() != nil {
			return
		}
		s.disconnect(err)
		s.queue.failed()
		// A stream that worked for a while tells nothing about the next; one that is refused at once does.
		if time.Since(began) > s.cfg.ConnectTimeout+s.cfg.MaxBackoff {
			pause = s.cfg.MinBackoff
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause/2 + rand.N(pause/2+1)):
		}
		pause = min(2*pause, s.cfg.MaxBackoff)
	}
}

// stream opens one stream and sends until it breaks. It never returns nil.
func (s *sender) stream(ctx context.Context) error {
	conn, err := s.dial()
	if err != nil {
		return err
	}
	defer conn.Close()

	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	consent := time.AfterFunc(s.cfg.ConnectTimeout, func() {
		cancel(fmt.Errorf("no answer from node %d at %s within %v", s.to, s.address, s.cfg.ConnectTimeout))
	})
	defer consent.Stop()

	h := header{protocol: protocol, cluster: s.cfg.Cluster, founding: s.cfg.Founding(), from: s.cfg.Node, to: s.to, class: s.class, incarnation: s.cfg.Incarnation, boot: s.cfg.Boot}
	stream, err := conn.NewStream(metadata.NewOutgoingContext(ctx, h.metadata()), &streamDesc, streamMethod)
	if err != nil {
		return s.reason(ctx, err)
	}
	answer, err := stream.Header()
	if err == nil && len(answer.Get(keyIncarnation)) == 0 {
		// The peer said no: its reason comes as the status of the stream.
		err = stream.RecvMsg(new([]byte))
	}
	if err != nil {
		return s.reason(ctx, err)
	}
	consent.Stop()
	s.connect(answer)

	// Nothing ever comes back by this stream but its end, which an idle sender would not notice.
	broken := make(chan error, 1)
	go func() { broken <- stream.RecvMsg(new([]byte)) }()
	err = s.send(stream, broken)
	if err == nil {
		err = <-broken
	} else {
		cancel(err)
		<-broken //nolint:errcheck // it ends because of err, which is what counts
	}
	return s.reason(ctx, err)
}

// send moves frames from the queue to the stream. It returns nil when the stream's end explains itself by broken.
func (s *sender) send(stream grpc.ClientStream, broken chan error) error {
	var batch []transport.Message
	var e encoder
	for {
		var bytes int
		batch, bytes = s.queue.take(batch[:0])
		if len(batch) == 0 {
			select {
			case <-s.queue.ready:
				continue
			case err := <-broken:
				broken <- err
				return nil
			}
		}
		buf := mem.DefaultBufferPool().Get(bytes)
		frame, err := e.appendFrame((*buf)[:0], batch)
		if err != nil {
			return err
		}
		*buf = frame // which may have outgrown it
		size := len(frame)
		clear(batch)
		if err := stream.SendMsg(buf); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		s.sentBytes.Add(uint64(size))
	}
}

func (s *sender) dial() (*grpc.ClientConn, error) {
	creds := insecure.NewCredentials()
	if s.cfg.TLS != nil {
		creds = credentials.NewTLS(s.cfg.TLS)
	}
	conn, err := grpc.NewClient("passthrough:///"+s.address,
		grpc.WithTransportCredentials(creds),
		grpc.WithContextDialer(s.cfg.Dial),
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: backoff.DefaultConfig, MinConnectTimeout: s.cfg.ConnectTimeout}),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: s.cfg.PingInterval, Timeout: s.cfg.PingTimeout}),
		grpc.WithDefaultCallOptions(grpc.ForceCodecV2(rawCodec{}), grpc.MaxCallSendMsgSize(maxWireBytes)),
		// Frames are not repeated by gRPC, so it need not keep them, and the run loop reconnects.
		grpc.WithDisableRetry(), grpc.WithDisableServiceConfig(), grpc.WithIdleTimeout(0),
		grpc.WithWriteBufferSize(ioBufferBytes), grpc.WithReadBufferSize(ioBufferBytes),
	)
	if err != nil {
		return nil, fmt.Errorf("address %q of node %d: %w", s.address, s.to, err)
	}
	return conn, nil
}

// reason finds why a stream ended: our own reason to cancel it, else what the status says.
func (s *sender) reason(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if errors.Is(err, io.EOF) {
		return fmt.Errorf("node %d closed the stream", s.to)
	}
	st := status.Convert(err)
	switch st.Code() {
	case codes.PermissionDenied:
		return &refusal{st.Message(), false}
	case codes.FailedPrecondition:
		return &refusal{st.Message(), true}
	}
	return errors.New(st.Message())
}

// refusal is the reason of who answered not to talk to this node: the peer, or a stranger at its address.
type refusal struct {
	reason   string
	stranger bool
}

func (r *refusal) Error() string { return r.reason }

func (s *sender) connect(answer metadata.MD) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.connected.Store(true)
	s.refused, s.stranger, s.err = false, false, ""
	s.process, _ = strconv.ParseUint(answer.Get(keyIncarnation)[0], 10, 64) // 0, as before, for what is no number
	s.log.Info("peer connected", "incarnation", answer.Get(keyIncarnation)[0])
}

// disconnect notes why there is no stream. A peer that stays away is logged once for each reason, not for each attempt.
func (s *sender) disconnect(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if reason := err.Error(); s.connected.Load() || s.err != reason {
		s.log.Warn("peer not connected", "err", reason)
	}
	no, refused := errors.AsType[*refusal](err)
	s.stranger = refused && no.stranger
	s.connected.Store(false)
	s.refused, s.err = refused && !no.stranger, err.Error()
}
