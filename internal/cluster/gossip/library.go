package gossip

import (
	"bytes"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/memberlist"
	"golang.org/x/time/rate"
)

// patience bounds connecting to a member, exchanging everything with it, and looking a name up.
const patience = 2 * time.Second

// settings of the library. A crashed node is probed within half a second per member, suspected after another 0.2 s, and taken for gone 2 s
// later when the suspicion is confirmed, or 12 s when nobody does. With settings for one second, healthy nodes were taken for dead
// where every fifth packet was lost (docs/adr/0012-gossip-by-memberlist.md).
func settings(cfg *Config, at *net.TCPAddr) (*memberlist.Config, error) {
	if cfg.Self.Gossip == "" {
		if at.IP == nil || at.IP.IsUnspecified() {
			return nil, errors.New("Self.Gossip is empty, and listening on every address does not say by which the others reach this node")
		}
		cfg.Self.Gossip = at.String()
	}
	meta, err := json.Marshal(cfg.Self)
	if err != nil {
		return nil, err
	}
	if len(meta) > memberlist.MetaMaxSize {
		return nil, fmt.Errorf("this node's addresses, name, zone and version take %d bytes as JSON, more than the %d that fit", len(meta), memberlist.MetaMaxSize)
	}
	key, err := hkdf.Key(sha256.New, cfg.Secret, []byte(cfg.Cluster), "hanse gossip 1", 32)
	if err != nil {
		return nil, err
	}
	c := memberlist.DefaultLANConfig()
	// A node that came back is another member: it need not refute what is said of its former self, nor wait for that to be forgotten.
	c.Name = strconv.FormatUint(cfg.Self.Node, 10) + "." + strconv.FormatUint(cfg.Self.Boot, 10)
	c.Label = cfg.Cluster
	c.SecretKey = key
	c.Delegate = description(meta)
	c.BindPort = at.Port
	c.ProbeInterval, c.ProbeTimeout = 500*time.Millisecond, 200*time.Millisecond
	c.IndirectChecks, c.SuspicionMult, c.RetransmitMult = 3, 4, 4
	c.TCPTimeout = patience
	// News that got lost is repaired by exchanging everything; at the default of 30 s one in twenty joins took 21 s to be known everywhere.
	c.PushPullInterval = 10 * time.Second
	return c, nil
}

// description is what the library hands out about this node: nothing but who it is.
type description []byte

func (d description) NodeMeta(int) []byte             { return d }
func (description) NotifyMsg([]byte)                  {}
func (description) GetBroadcasts(int, int) [][]byte   { return nil }
func (description) LocalState(bool) []byte            { return nil }
func (description) MergeRemoteState(_ []byte, _ bool) {}

// listen takes a port for both protocols. One that is free for TCP need not be for UDP.
func listen(address string, logger *log.Logger) (*memberlist.NetTransport, *net.TCPAddr, error) {
	at, err := net.ResolveTCPAddr("tcp", address)
	if err != nil {
		return nil, nil, err
	}
	host := "" // every address, of the families that the machine has
	if at.IP != nil {
		host = at.IP.String()
	}
	for try := 1; ; try++ {
		t, err := memberlist.NewNetTransport(&memberlist.NetTransportConfig{BindAddrs: []string{host}, BindPort: at.Port, Logger: logger})
		if err == nil {
			return t, &net.TCPAddr{IP: at.IP, Port: t.GetAutoBindPort()}, nil
		}
		if at.Port != 0 || try == 10 {
			return nil, nil, err
		}
	}
}

// shut closes a transport of which the library may not read, or no longer: its listeners end only once they have handed over what they
// have received.
func shut(t *memberlist.NetTransport) error {
	done := make(chan error, 1)
	go func() { done <- t.Shutdown() }()
	for {
		select {
		case err := <-done:
			return err
		case <-t.PacketCh():
		case conn := <-t.StreamCh():
			_ = conn.Close()
		}
	}
}

// libraryLogger passes on what the library writes: "[WARN] memberlist: Refuting a suspect message (from: 2.7)".
func libraryLogger(to *slog.Logger) *log.Logger {
	return log.New(&lines{to: to, warnings: rate.NewLimiter(rate.Every(10*time.Second), 5)}, "", 0)
}

// lines is a writer of log lines. Most are for us. Warnings and errors are for operators, as long as they are few: a stranger with a
// wrong key causes one with each packet.
type lines struct {
	to       *slog.Logger
	warnings *rate.Limiter
}

func (l *lines) Write(line []byte) (int, error) {
	log, text := l.to.Debug, string(bytes.TrimSpace(line))
	if level, rest, found := strings.Cut(text, "] "); found && strings.HasPrefix(level, "[") {
		text = strings.TrimPrefix(rest, "memberlist: ")
		if (level == "[WARN" || level == "[ERR") && l.warnings.Allow() {
			log = l.to.Warn
		}
	}
	log("gossip reports", "what", text)
	return len(line), nil
}
