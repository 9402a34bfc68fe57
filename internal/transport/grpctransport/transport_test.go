package grpctransport

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"hanse/internal/transport"
	"hanse/internal/transport/transporttest"
)

func request(body string) transport.Message {
	return transport.Message{Kind: transport.KindRequest, ID: 1, Body: []byte(body)}
}

func ignore(transport.NodeID, transport.Class, []transport.Message) {}

// rawStream opens a stream to a node as a peer would, with any header.
func rawStream(t *testing.T, l *lab, address string, md metadata.MD) grpc.ClientStream {
	t.Helper()
	conn, err := grpc.NewClient("passthrough:///"+address, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(l.dial), grpc.WithDefaultCallOptions(grpc.ForceCodecV2(rawCodec{})))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	// Keepalive goes on for ever, in a bubble too, so a verdict that never comes needs an end.
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	stream, err := conn.NewStream(metadata.NewOutgoingContext(ctx, md), &streamDesc, streamMethod)
	if err != nil {
		t.Fatal(err)
	}
	return stream
}

// verdict waits for the end of a stream.
func verdict(stream grpc.ClientStream) *status.Status {
	return status.Convert(stream.RecvMsg(new([]byte)))
}

func goodHeader() header {
	return header{protocol: protocol, cluster: "hanse", from: 2, to: 1, class: transport.Raft, incarnation: 7}
}

func TestRefusedStreams(t *testing.T) {
	with := func(change func(*header)) metadata.MD {
		h := goodHeader()
		change(&h)
		return h.metadata()
	}
	without := func(key string) metadata.MD {
		md := goodHeader().metadata()
		md.Delete(key)
		return md
	}
	tests := []struct {
		name string
		md   metadata.MD
		want string
	}{
		{"another protocol", with(func(h *header) { h.protocol = 9 }), "speaks protocol 9, this is node 1 and speaks 1"},
		{"another cluster", with(func(h *header) { h.cluster = "other" }), `belongs to cluster "other", this is node 1 of cluster "hanse"`},
		{"another cluster of the name", with(func(h *header) { h.founding = "beef" }), `two clusters that are both called "hanse"`},
		{"for another node", with(func(h *header) { h.to = 3 }), "looks for node 3 here, this is node 1"},
		{"from itself", with(func(h *header) { h.from = 1 }), "claims to be node 1"},
		{"from nobody", with(func(h *header) { h.from = 0 }), "claims to be node 0"},
		{"unknown class", with(func(h *header) { h.class = transport.Classes }), "unknown class 3"},
		{"no cluster", without(keyCluster), "not a node"},
		{"no incarnation", without(keyIncarnation), "not a node"},
		{"no metadata", nil, "not a node"},
		{"not a number", metadata.Join(without(keyFrom), metadata.Pairs(keyFrom, "-2")), "not a node"},
		{"class beyond 8 bits", metadata.Join(without(keyClass), metadata.Pairs(keyClass, "256")), "not a node"},
		{"two values", metadata.Join(goodHeader().metadata(), metadata.Pairs(keyFrom, "3")), "2 values"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newLab()
				l.founding = "f00d"
				one, _ := l.start(t, transporttest.Options{ID: 1, Address: "one", Handler: ignore})
				got := verdict(rawStream(t, l, "one", test.md))
				if got.Code() != codes.FailedPrecondition || !strings.Contains(got.Message(), test.want) {
					t.Errorf("stream ended with %v, want FailedPrecondition with %q", got, test.want)
				}
				if r := one.Received(); r.Refused != 1 {
					t.Errorf("Refused = %d, want 1", r.Refused)
				}
			})
		})
	}
}

// Who is not admitted hears why, and is told from a peer that is away.
func TestRefusedNode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab()
		l.admit = func(node transport.NodeID, boot, incarnation uint64) error {
			if node == 2 {
				return fmt.Errorf("start %d of node %d, process %d, is an old one", boot, node, incarnation)
			}
			return nil
		}
		one, _ := l.start(t, transporttest.Options{ID: 1, Address: "one", Handler: func(transport.NodeID, transport.Class, []transport.Message) {
			t.Error("node 1 heard a node that it does not admit")
		}})
		two, _ := l.start(t, transporttest.Options{ID: 2, Address: "two", Handler: ignore})
		two.SetPeers(map[transport.NodeID]string{1: "one", 3: "nobody is here", 4: "one"})
		one.SetPeers(map[transport.NodeID]string{2: "two"})
		two.Send(1, transport.Call, request("hear me"))
		l.Settle()
		peers := two.Peers()
		if p := peers[0]; p.Connected || !p.Refused || !strings.HasPrefix(p.Err, "start 20 of node 2, process 42, is an old one") {
			t.Errorf("Peers()[0] = %+v, want it refused for its start", p)
		}
		if p := peers[1]; p.Connected || p.Refused {
			t.Errorf("Peers()[1] = %+v, want it away and not refused", p)
		}
		if p := peers[2]; p.Connected || p.Refused || !p.Stranger || !strings.Contains(p.Err, "looks for node 4 here") || p.Process != 0 {
			t.Errorf("Peers()[2] = %+v, want a stranger at its address", p)
		}
		if p := one.Peers()[0]; !p.Connected || p.Process != 42 {
			t.Errorf("Peers()[0] of node 1 = %+v, want it connected to process 42", p)
		}
	})
}

func TestMalformedFrameClosesTheStream(t *testing.T) {
	good := encode(t, request("good"))
	short := raftMessage(&raftpb.Message{Type: raftpb.MsgHeartbeatResp.Enum(), Context: []byte("7 bytes")})
	tests := []struct {
		name, want string
		frame      []byte
	}{
		{"garbage", "checksum", []byte("GET / HTTP/1.1\r\n\r\n")},
		{"nothing", "ends within", nil},
		{"a message that makes Raft panic", "want 0 or 8", encode(t, short)},
		{"altered", "checksum", append(append([]byte(nil), good[:len(good)-1]...), 'D')},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newLab()
				var handled atomic.Int64
				one, _ := l.start(t, transporttest.Options{ID: 1, Address: "one", Handler: func(_ transport.NodeID, _ transport.Class, m []transport.Message) {
					handled.Add(int64(len(m)))
				}})
				stream := rawStream(t, l, "one", goodHeader().metadata())
				for _, frame := range [][]byte{good, test.frame, good} {
					frame = append([]byte(nil), frame...)
					if err := stream.SendMsg(&frame); err != nil && !errors.Is(err, io.EOF) {
						t.Fatal(err)
					}
				}
				got := verdict(stream)
				if got.Code() != codes.InvalidArgument || !strings.Contains(got.Message(), test.want) {
					t.Errorf("stream ended with %v, want InvalidArgument with %q", got, test.want)
				}
				synctest.Wait()
				if r := one.Received(); r.Malformed != 1 || r.Frames != 1 || handled.Load() != 1 {
					t.Errorf("received %+v, handled %d, want one good and one malformed frame, and none after it", r, handled.Load())
				}
			})
		})
	}
}

func TestNewerStreamTakesThePlace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab()
		var got []string
		l.start(t, transporttest.Options{ID: 1, Address: "one", Handler: func(_ transport.NodeID, _ transport.Class, messages []transport.Message) {
			for _, m := range messages {
				got = append(got, string(m.Body))
			}
		}})
		send := func(stream grpc.ClientStream, body string) {
			frame := encode(t, request(body))
			stream.SendMsg(&frame)
			synctest.Wait()
		}
		old := rawStream(t, l, "one", goodHeader().metadata())
		send(old, "old")
		h := goodHeader()
		h.incarnation = 8
		newer := rawStream(t, l, "one", h.metadata())
		synctest.Wait()
		send(old, "late")
		send(newer, "new")
		if end := verdict(old); end.Code() != codes.Aborted || !strings.Contains(end.Message(), "newer stream from process 8") {
			t.Errorf("the old stream ended with %v, want Aborted for a newer stream", end)
		}
		if want := "old new"; strings.Join(got, " ") != want {
			t.Errorf("handled %q, want %q", got, want)
		}
	})
}

func TestReconnectBackoff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab()
		one, _ := l.start(t, transporttest.Options{ID: 1, Address: "one", Handler: ignore})
		one.SetPeers(map[transport.NodeID]string{2: "two"})
		one.Send(2, transport.Call, request("nobody will wait 20 s for the answer"))
		time.Sleep(20 * time.Second)
		if p := one.Peers()[0]; p.Queued != 0 || p.Dropped != 1 {
			t.Errorf("Peers()[0] = %+v, want the message dropped after the second failure", p)
		}
		l.mu.Lock()
		attempts := l.dialled
		l.mu.Unlock()
		// Three classes, each: 50 ms doubling to 2 s makes 6 attempts in 3 s, then one each 1 to 2 s.
		if n := len(attempts); n < 3*(6+8) || n > 3*(8+19) {
			t.Errorf("%d attempts in 20 s, want 42 to 81", n)
		}
		if first := attempts[3].Sub(attempts[0]); first > 50*time.Millisecond {
			t.Errorf("second attempt after %v, want at most 50 ms", first)
		}
		// A peer that comes back is reached within the longest pause.
		l.start(t, transporttest.Options{ID: 2, Address: "two", Handler: ignore})
		time.Sleep(2*time.Second + time.Millisecond)
		synctest.Wait()
		if p := one.Peers()[0]; !p.Connected {
			t.Errorf("Peers()[0] = %+v 2 s after the peer started, want connected", p)
		}
	})
}

func TestRemovedPeersAreLeftAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab()
		one, _ := l.start(t, transporttest.Options{ID: 1, Address: "one", Handler: ignore})
		_, stop := l.start(t, transporttest.Options{ID: 2, Address: "two", Handler: ignore})
		one.SetPeers(map[transport.NodeID]string{2: "two", 3: "nobody is here"})
		l.Settle()
		one.SetPeers(nil)
		synctest.Wait()
		stop()
		dialled := len(l.dialled)
		l.Settle()
		if n := len(l.dialled) - dialled; n != 0 {
			t.Errorf("dialled removed peers %d times, want 0", n)
		}
	})
}

func TestIdleStreamsStay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab()
		table := map[transport.NodeID]string{1: "one", 2: "two"}
		one, _ := l.start(t, transporttest.Options{ID: 1, Address: "one", Handler: ignore})
		two, _ := l.start(t, transporttest.Options{ID: 2, Address: "two", Handler: ignore})
		one.SetPeers(table)
		two.SetPeers(table)
		time.Sleep(10 * time.Minute) // sixty pings
		synctest.Wait()
		if n, want := len(l.dialled), 2*int(transport.Classes); n != want {
			t.Errorf("dialled %d times in ten idle minutes, want %d: once in each direction and class", n, want)
		}
		if p := one.Peers()[0]; !p.Connected {
			t.Errorf("Peers()[0] = %+v, want connected", p)
		}
	})
}

func TestRunWaitsForItsHandlers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab()
		release := make(chan struct{})
		_, stop := l.start(t, transporttest.Options{ID: 1, Address: "one", Handler: func(transport.NodeID, transport.Class, []transport.Message) {
			<-release
		}})
		two, _ := l.start(t, transporttest.Options{ID: 2, Address: "two", Handler: ignore})
		two.SetPeers(map[transport.NodeID]string{1: "one"})
		two.Send(1, transport.Call, request("slow"))
		synctest.Wait()
		stopped := make(chan struct{})
		go func() {
			stop()
			close(stopped)
		}()
		synctest.Wait()
		select {
		case <-stopped:
			t.Error("Run returned while the handler was at work")
		default:
		}
		close(release)
		<-stopped
	})
}

func TestSilentPeerTimesOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab()
		one, _ := l.start(t, transporttest.Options{ID: 1, Address: "one", Handler: ignore})
		silent := l.listen(t, "two") // connections are accepted by nobody: bytes vanish
		defer silent.Close()
		var conns []net.Conn
		go func() {
			for {
				c, err := silent.Accept()
				if err != nil {
					return
				}
				conns = append(conns, c)
			}
		}()
		one.SetPeers(map[transport.NodeID]string{2: "two"})
		time.Sleep(30 * time.Second)
		synctest.Wait()
		if p := one.Peers()[0]; p.Connected || p.Err == "" || strings.Contains(p.Err, "not connected yet") {
			t.Errorf("Peers()[0] = %+v, want not connected, with the reason of an attempt", p)
		}
		// Attempts take 3 s and the pauses 1 to 2 s, so none may hang for ever.
		if len(conns) < 3*5 {
			t.Errorf("%d connections in 30 s, want 15 or more", len(conns))
		}
		for _, c := range conns {
			c.Close()
		}
	})
}

func TestQueueForgetsWhatTwoFailuresHaveSeen(t *testing.T) {
	q := newQueue(1 << 20)
	q.push(request("a"))
	q.failed()
	q.push(request("b"))
	if _, dropped := q.figures(); dropped != 0 {
		t.Errorf("%d dropped at the first failure, want 0", dropped)
	}
	q.failed()
	batch, _ := q.take(nil)
	if len(batch) != 1 || string(batch[0].Body) != "b" {
		t.Errorf("after two failures %d messages wait, want only that which was queued between them", len(batch))
	}
	if bytes, dropped := q.figures(); bytes != 0 || dropped != 1 {
		t.Errorf("%d bytes wait and %d were dropped, want 0 and 1", bytes, dropped)
	}
	q.failed()
	if _, dropped := q.figures(); dropped != 1 {
		t.Errorf("%d dropped, want 1: what was taken is not dropped again", dropped)
	}
}

func TestTakeFillsFrames(t *testing.T) {
	small, large := request("s"), request(strings.Repeat("l", 700<<10))
	tests := []struct {
		name  string
		queue []transport.Message
		want  []int // messages of each frame
	}{
		{"nothing", nil, nil},
		{"by count", slices.Repeat([]transport.Message{small}, 2*maxFrameMessages+1), []int{maxFrameMessages, maxFrameMessages, 1}},
		{"by bytes", []transport.Message{small, large, small, large, large}, []int{3, 1, 1}},
		{"one larger than a frame", []transport.Message{small, request(strings.Repeat("x", 2<<20)), small}, []int{1, 1, 1}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			q := newQueue(1 << 30)
			for _, m := range test.queue {
				q.push(m)
			}
			var got []int
			for {
				batch, _ := q.take(nil)
				if len(batch) == 0 {
					break
				}
				got = append(got, len(batch))
			}
			if fmt.Sprint(got) != fmt.Sprint(test.want) {
				t.Errorf("frames of %v messages, want %v", got, test.want)
			}
		})
	}
}

func TestRunFailsWithItsListener(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab()
		cfg := DefaultConfig()
		cfg.Cluster, cfg.Node, cfg.Dial = "hanse", 1, l.dial
		one, err := New(cfg, ignore)
		if err != nil {
			t.Fatal(err)
		}
		listener := l.listen(t, "one")
		ended := make(chan error, 1)
		go func() { ended <- one.Run(t.Context(), listener) }()
		synctest.Wait()
		listener.Close()
		if err := <-ended; err == nil || errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), "accept peers") {
			t.Errorf("Run = %v, want that peers cannot be accepted", err)
		}
	})
}

func TestValidateReportsEverything(t *testing.T) {
	err := Config{Cluster: "two words"}.Validate()
	if err == nil {
		t.Fatal("Validate of an empty Config = nil")
	}
	for _, want := range []string{`cluster "two words"`, "node:", "queue of class raft", "queue of class bulk", "backoff", "connect timeout", "ping interval", "ping timeout", "dial", "log"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("Validate() does not mention %q:\n%v", want, err)
		}
	}
	cfg := DefaultConfig()
	cfg.Cluster, cfg.Node = "hanse", 1
	if err := cfg.Validate(); err != nil {
		t.Errorf("Validate of the defaults = %v", err)
	}
	if _, err := New(Config{}, ignore); err == nil {
		t.Error("New accepts an empty Config")
	}
}

// overTCP starts two nodes on loopback, with what they send to one another going to handler.
func overTCP(t testing.TB, tlsConfig [2]*tls.Config, handler transport.Handler) [2]*Transport {
	var nodes [2]*Transport
	table := map[transport.NodeID]string{}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	t.Cleanup(func() {
		cancel()
		wg.Wait()
	})
	for i := range nodes {
		cfg := DefaultConfig()
		cfg.Cluster, cfg.Node, cfg.Incarnation, cfg.TLS = "hanse", transport.NodeID(i+1), uint64(i), tlsConfig[i]
		n, err := New(cfg, handler)
		if err != nil {
			t.Fatal(err)
		}
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		table[cfg.Node] = listener.Addr().String()
		nodes[i] = n
		wg.Go(func() { n.Run(ctx, listener) })
	}
	for _, n := range nodes {
		n.SetPeers(table)
	}
	return nodes
}

// authority issues certificates for loopback and for the address two.
func authority(t *testing.T) func() *tls.Config {
	t.Helper()
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	caKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	check(err)
	ca := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "ca"}, NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	der, err := x509.CreateCertificate(rand.Reader, ca, ca, &caKey.PublicKey, caKey)
	check(err)
	root, err := x509.ParseCertificate(der)
	check(err)
	pool := x509.NewCertPool()
	pool.AddCert(root)
	return func() *tls.Config {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		check(err)
		leaf := &x509.Certificate{SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "node"}, NotAfter: time.Now().Add(time.Hour),
			IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, DNSNames: []string{"two"}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}}
		der, err := x509.CreateCertificate(rand.Reader, leaf, root, &key.PublicKey, caKey)
		check(err)
		return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}},
			RootCAs: pool, ClientCAs: pool, ClientAuth: tls.RequireAndVerifyClientCert}
	}
}

func TestMutualTLSOverTCP(t *testing.T) {
	issue := authority(t)
	got := make(chan string, 1)
	nodes := overTCP(t, [2]*tls.Config{issue(), issue()}, func(from transport.NodeID, class transport.Class, messages []transport.Message) {
		got <- fmt.Sprintf("%d/%v:%s", from, class, messages[0].Body)
	})
	if !nodes[0].Send(2, transport.Call, request("secret")) {
		t.Fatal("Send = false")
	}
	select {
	case g := <-got:
		if want := "1/call:secret"; g != want {
			t.Errorf("got %q, want %q", g, want)
		}
	case <-time.After(30 * time.Second): // only when it is broken
		t.Errorf("nothing arrived; Peers() = %+v", nodes[0].Peers())
	}
}

func TestStrangersCertificateIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ours, theirs := authority(t), authority(t)
		stranger := theirs()
		stranger.RootCAs = ours().RootCAs // it trusts us, we do not trust it
		l := newLab()
		l.tls = map[transport.NodeID]*tls.Config{1: stranger, 2: ours(), 3: ours()}
		var from []transport.NodeID
		l.start(t, transporttest.Options{ID: 2, Address: "two", Handler: func(id transport.NodeID, _ transport.Class, _ []transport.Message) {
			from = append(from, id)
		}})
		one, _ := l.start(t, transporttest.Options{ID: 1, Address: "one", Handler: ignore})
		three, _ := l.start(t, transporttest.Options{ID: 3, Address: "three", Handler: ignore})
		for _, n := range []*Transport{one, three} {
			n.SetPeers(map[transport.NodeID]string{2: "two"})
			n.Send(2, transport.Call, request("let me in"))
		}
		l.Settle()
		if !slices.Equal(from, []transport.NodeID{3}) {
			t.Errorf("messages came from %v, want from node 3 alone", from)
		}
		if p := one.Peers()[0]; p.Connected {
			t.Errorf("Peers()[0] of the stranger = %+v, want not connected", p)
		}
	})
}

func BenchmarkSend(b *testing.B) {
	small := raftMessage(&raftpb.Message{Type: raftpb.MsgApp.Enum(), Term: new(uint64(5)), LogTerm: new(uint64(5)), Index: new(uint64(300)),
		Commit: new(uint64(299)), Entries: []*raftpb.Entry{{Term: new(uint64(5)), Index: new(uint64(301)), Data: make([]byte, 100)}}})
	large := transport.Message{Kind: transport.KindSnapshot, Group: 1, Body: make([]byte, 256<<10)}
	for _, bench := range []struct {
		name    string
		class   transport.Class
		message transport.Message
	}{{"small", transport.Raft, small}, {"snapshot", transport.Bulk, large}} {
		b.Run(bench.name, func(b *testing.B) {
			var received, frames atomic.Int64
			progress := make(chan struct{}, 1)
			nodes := overTCP(b, [2]*tls.Config{}, func(_ transport.NodeID, _ transport.Class, messages []transport.Message) {
				received.Add(int64(len(messages)))
				frames.Add(1)
				select {
				case progress <- struct{}{}:
				default:
				}
			})
			send := func() {
				for !nodes[0].Send(2, bench.class, bench.message) {
					<-progress // the queue is full
				}
			}
			send()
			for received.Load() == 0 {
				<-progress
			}
			b.ReportAllocs()
			b.SetBytes(int64(bench.message.SizeBytes()))
			sent := int64(1)
			for b.Loop() {
				send()
				sent++
			}
			for received.Load() < sent {
				<-progress
			}
			b.ReportMetric(float64(sent)/b.Elapsed().Seconds(), "messages/s")
			b.ReportMetric(float64(sent)/float64(frames.Load()), "messages/frame")
		})
	}
}

// BenchmarkPingPong measures a message there and one back, each alone in its frame.
func BenchmarkPingPong(b *testing.B) {
	back := make(chan struct{}, 1)
	var nodes [2]*Transport
	ready := make(chan struct{})
	nodes = overTCP(b, [2]*tls.Config{}, func(from transport.NodeID, class transport.Class, messages []transport.Message) {
		<-ready
		if from == 2 {
			back <- struct{}{}
			return
		}
		nodes[1].Send(1, class, messages[0])
	})
	close(ready)
	ping := request("ping")
	for range 100 {
		nodes[0].Send(2, transport.Call, ping)
		<-back
	}
	b.ReportAllocs()
	for b.Loop() {
		nodes[0].Send(2, transport.Call, ping)
		<-back
	}
}
