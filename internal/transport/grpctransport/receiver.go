package grpctransport

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"sync/atomic"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"hanse/internal/transport"
)

const streamMethod = "/hanse.transport.Peers/Stream"

// streamDesc lets both sides send, so that either notices at once when the other ends the stream.
var streamDesc = grpc.StreamDesc{StreamName: "Stream", ClientStreams: true, ServerStreams: true}

// maxInbound bounds the places for streams: one for each peer and class that ever connected.
const maxInbound = 4096

// receiver takes the streams of peers.
type receiver struct {
	cfg     *Config
	handler transport.Handler

	frames, messages, bytes, refused, malformed atomic.Uint64

	mu    sync.Mutex
	slots map[slotKey]*slot
}

type slotKey struct {
	from  transport.NodeID
	class transport.Class
}

// slot is the place of one peer and class. Its lock is held while a frame is handled, so frames follow one another even when
// the peer reconnects before the old stream is known to be dead.
type slot struct {
	mu          sync.Mutex
	stream      int // the number of the newest stream, which alone may deliver
	incarnation uint64
}

func (r *receiver) serviceDesc() *grpc.ServiceDesc {
	desc := streamDesc
	desc.Handler = func(_ any, stream grpc.ServerStream) error { return r.serve(stream) }
	return &grpc.ServiceDesc{ServiceName: "hanse.transport.Peers", HandlerType: (*any)(nil), Streams: []grpc.StreamDesc{desc}}
}

// serve handles one stream until it ends. What it returns reaches the sender as the reason.
func (r *receiver) serve(stream grpc.ServerStream) error {
	md, _ := metadata.FromIncomingContext(stream.Context())
	h, err := readHeader(md)
	if err == nil {
		err = r.cfg.fits(h)
	}
	code := codes.FailedPrecondition
	if err == nil {
		code, err = codes.PermissionDenied, r.cfg.Admit(h.from, h.boot, h.incarnation)
	}
	var at *slot
	var number int
	if err == nil {
		code = codes.ResourceExhausted
		at, number, err = r.claim(h)
	}
	if err != nil {
		r.refused.Add(1)
		r.cfg.Log.Warn("peer refused", "err", err)
		return status.Error(code, err.Error())
	}
	answer := header{protocol: protocol, cluster: r.cfg.Cluster, founding: r.cfg.Founding(), from: r.cfg.Node, to: h.from, class: h.class, incarnation: r.cfg.Incarnation, boot: r.cfg.Boot}
	if err := stream.SendHeader(answer.metadata()); err != nil {
		return err
	}
	log := r.cfg.Log.With("peer", uint64(h.from), "class", h.class.String())
	return r.receive(stream, h, at, number, log)
}

func (r *receiver) receive(stream grpc.ServerStream, h header, at *slot, number int, log *slog.Logger) error {
	var messages []transport.Message
	for {
		var frame []byte
		if err := stream.RecvMsg(&frame); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		var err error
		if messages, err = decodeFrame(messages[:0], frame); err != nil {
			r.malformed.Add(1)
			log.Error("malformed frame, stream closed", "err", err, "bytes", len(frame))
			return status.Errorf(codes.InvalidArgument, "malformed frame of %d bytes: %v", len(frame), err)
		}
		r.frames.Add(1)
		r.messages.Add(uint64(len(messages)))
		r.bytes.Add(uint64(len(frame)))
		if err := r.deliver(h, at, number, messages); err != nil {
			return status.Error(codes.Aborted, err.Error())
		}
		clear(messages) // keep no message alive while the stream is idle
	}
}

// claim makes a new stream the one that may deliver for its peer and class.
func (r *receiver) claim(h header) (*slot, int, error) {
	r.mu.Lock()
	key := slotKey{h.from, h.class}
	at := r.slots[key]
	if at == nil {
		if len(r.slots) >= maxInbound {
			r.mu.Unlock()
			return nil, 0, fmt.Errorf("node %d is one too many: %d streams of peers are known already", h.from, maxInbound)
		}
		at = &slot{}
		r.slots[key] = at
	}
	r.mu.Unlock()
	at.mu.Lock()
	defer at.mu.Unlock()
	at.stream++
	at.incarnation = h.incarnation
	return at, at.stream, nil
}

// deliver hands messages over, or fails when a newer stream has taken the place.
func (r *receiver) deliver(h header, at *slot, number int, messages []transport.Message) error {
	at.mu.Lock()
	defer at.mu.Unlock()
	if at.stream != number {
		return fmt.Errorf("node %d has opened a newer stream from process %d", h.from, at.incarnation)
	}
	if len(messages) > 0 {
		r.handler(h.from, h.class, messages)
	}
	return nil
}
