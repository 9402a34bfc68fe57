package grpctransport

import (
	"fmt"
	"strconv"

	"google.golang.org/grpc/metadata"

	"hanse/internal/transport"
)

// protocol is the version of the frame format and of the meaning of messages. Nodes of different versions do not talk, so a
// change that old nodes can ignore does not raise it.
const protocol = 1

// header introduces a stream.
type header struct {
	protocol    uint64
	cluster     string
	founding    string
	from, to    transport.NodeID
	class       transport.Class
	incarnation uint64
	boot        uint64
}

const (
	keyProtocol    = "hanse-protocol"
	keyCluster     = "hanse-cluster"
	keyFounding    = "hanse-founding"
	keyFrom        = "hanse-from"
	keyTo          = "hanse-to"
	keyClass       = "hanse-class"
	keyIncarnation = "hanse-incarnation"
	keyBoot        = "hanse-boot"
)

func (h header) metadata() metadata.MD {
	return metadata.Pairs(
		keyProtocol, strconv.FormatUint(h.protocol, 10),
		keyCluster, h.cluster,
		keyFounding, h.founding,
		keyFrom, strconv.FormatUint(uint64(h.from), 10),
		keyTo, strconv.FormatUint(uint64(h.to), 10),
		keyClass, strconv.Itoa(int(h.class)),
		keyIncarnation, strconv.FormatUint(h.incarnation, 10),
		keyBoot, strconv.FormatUint(h.boot, 10),
	)
}

// readHeader fails for a caller that is not one of ours: something is missing or not a number.
func readHeader(md metadata.MD) (header, error) {
	var err error
	text := func(key string) string {
		values := md.Get(key)
		if len(values) != 1 {
			if err == nil {
				err = fmt.Errorf("stream metadata has %d values of %s, want 1: the caller is not a node", len(values), key)
			}
			return ""
		}
		return values[0]
	}
	number := func(key string, bits int) uint64 {
		s := text(key)
		v, parseErr := strconv.ParseUint(s, 10, bits)
		if parseErr != nil && err == nil {
			err = fmt.Errorf("stream metadata %s = %q, want a number: the caller is not a node", key, s)
		}
		return v
	}
	h := header{
		protocol: number(keyProtocol, 64), cluster: text(keyCluster),
		from: transport.NodeID(number(keyFrom, 64)), to: transport.NodeID(number(keyTo, 64)),
		class: transport.Class(number(keyClass, 8)), incarnation: number(keyIncarnation, 64),
	}
	if len(md.Get(keyBoot)) > 0 { // nodes of an older version do not tell
		h.boot = number(keyBoot, 64)
	}
	if len(md.Get(keyFounding)) > 0 {
		h.founding = text(keyFounding)
	}
	return h, err
}

// fits reports why a stream with header h does not belong here.
func (c *Config) fits(h header) error {
	switch {
	case h.protocol != protocol:
		return fmt.Errorf("node %d of cluster %q speaks protocol %d, this is node %d and speaks %d",
			h.from, h.cluster, h.protocol, c.Node, protocol)
	case h.cluster != c.Cluster:
		return fmt.Errorf("node %d belongs to cluster %q, this is node %d of cluster %q", h.from, h.cluster, c.Node, c.Cluster)
	case h.founding != "" && c.Founding() != "" && h.founding != c.Founding():
		return fmt.Errorf("node %d and node %d are of two clusters that are both called %q: one of them runs on a directory of the other cluster",
			h.from, c.Node, c.Cluster)
	case h.to != c.Node:
		return fmt.Errorf("node %d looks for node %d here, this is node %d", h.from, h.to, c.Node)
	case h.from == 0 || h.from == c.Node:
		return fmt.Errorf("caller claims to be node %d, this is node %d", h.from, c.Node)
	case h.class >= transport.Classes:
		return fmt.Errorf("node %d opens a stream of unknown class %d", h.from, h.class)
	}
	return nil
}
