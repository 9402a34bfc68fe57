package cli

import (
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"hanse/internal/clock"
	"hanse/internal/node"
	"hanse/internal/psp"
	"hanse/internal/shard"
)

// nodeGOGC trades memory for processor time: a node's live heap is small against its machine, and what it allocates
// dies young. The limit keeps a node below a gigabyte whatever happens. It leaves room above what
// lives, some 160 MB of the heap after a year of orders with three shards of each service, so that the collector seldom runs.
const (
	nodeGOGC        = 400
	nodeMemoryLimit = 800 << 20
	// nodeHugeHeap is how much of the heap may be in pages of 2 MiB, about what a busy node has. It grows to that with what the cluster
	// holds, and by pages of 4 KiB each node of a year's replay had 200,000 page faults, on a virtual machine an eighth of its time.
	nodeHugeHeap = 512 << 20
	// nodeSpareProcs is what a node adds to Go's threads. There is always a sync under way, and the runtime takes the place of a thread
	// that waits in the kernel for occupied until it looks again, up to 15 ms later: with one place a core, a core would idle.
	nodeSpareProcs = 1
)

// logger makes the log that flags describe.
func (a *app) logger(format, level string) (*slog.Logger, error) {
	var l slog.Level
	if err := l.UnmarshalText([]byte(level)); err != nil {
		return nil, usage("--log-level %q: want debug, info, warn or error", level)
	}
	options := &slog.HandlerOptions{Level: l}
	switch format {
	case "text":
		return slog.New(slog.NewTextHandler(a.err, options)), nil
	case "json":
		options.ReplaceAttr = inMilliseconds
		return slog.New(slog.NewJSONHandler(a.err, options)), nil
	}
	return nil, usage("--log-format %q: want text or json", format)
}

// inMilliseconds gives durations their unit, which a number does not have: took becomes took_ms.
func inMilliseconds(_ []string, a slog.Attr) slog.Attr {
	if a.Value.Kind() == slog.KindDuration {
		return slog.Float64(a.Key+"_ms", float64(a.Value.Duration().Microseconds())/1000)
	}
	return a
}

const serveLong = `Run a node.

Each flag is also a setting of the same name in the environment (HANSE_NODE_ID for --node-id) and in the YAML file that --config
names. Flags win over the environment, that over the file, that over the defaults. For example

  data: /var/lib/hanse
  node-id: 1
  http: 10.0.0.1:7400
  peer: 10.0.0.1:7402
  peers:
    - 1=10.0.0.1:7400/10.0.0.1:7402
    - 2=10.0.0.2:7400/10.0.0.2:7402
    - 3=10.0.0.3:7400/10.0.0.3:7402
  shards: {order: 6, inventory: 6}
  psp: https://payments.example

All nodes have to be told who moves the money, and the same: --psp has the URL of the payment provider, or says instant, for tests: it
accepts everything and charges nobody. A node that joins takes the provider of the node that admits it, unless it is told. One that knows none
warns at each start that nobody is charged.

A cluster begins with one node that has --bootstrap, or with several that list one another in --peers. More join it:

  hanse serve --data DIR --bootstrap --psp URL --host 10.0.0.1 --zone a   # the first
  hanse node token                                                        # at any node
  HANSE_JOIN_TOKEN=... hanse serve --data DIR --host 10.0.0.4 --join 10.0.0.1:7400,10.0.0.2:7400 --zone b`

// serveFlags are the settings of a node that are not fields of its Config as they stand.
type serveFlags struct {
	port                       int
	host, peers, config        string
	advertise, tokenFile       string
	shards                     map[string]int
	logFormat, logLevel, debug string
}

// complete finishes the configuration of a node from its settings.
func (f *serveFlags) complete(cmd *cobra.Command, cfg *node.Config) (err error) {
	if f.config == "" {
		f.config = os.Getenv(envPrefix + "CONFIG")
	}
	if err := settings(cmd, f.config, os.Environ()); err != nil {
		return err
	}
	if cfg.Dir == "" {
		return usage("where is the node's data? --data DIR; with --bootstrap for the first node of a cluster, with --join ADDR for one more")
	}
	if f.port < 1 || f.port > maxPort-3 {
		return usage("--http-port %d: want 1 to %d, for the ports 2 and 3 above are the node's too", f.port, maxPort-3)
	}
	for i, addr := range []struct {
		name string
		to   *string
	}{{"http", &cfg.HTTPAddr}, {"peer", &cfg.PeerAddr}, {"gossip", &cfg.GossipAddr}} {
		if !cmd.Flags().Changed(addr.name) {
			*addr.to = net.JoinHostPort(f.host, strconv.Itoa(f.port+[]int{0, 2, 3}[i]))
		}
	}
	if cfg.Peers, err = parsePeers(f.peers); err != nil {
		return err
	}
	if err := f.advertised(cfg); err != nil {
		return err
	}
	cfg.LayoutStated, cfg.ReplicasStated = len(f.shards) > 0, cmd.Flags().Changed("replicas")
	for name, n := range f.shards {
		known := false
		for _, s := range shard.Services() {
			if s.String() == name {
				cfg.Layout[s], known = n, true
			}
		}
		if !known {
			return usage("--shards: there is no service %q", name)
		}
	}
	if !cfg.Bootstrap { // the data directory says what is not stated, or the cluster that is joined
		if !cmd.Flags().Changed("node-id") {
			cfg.ID = 0
		}
		if !cmd.Flags().Changed("cluster") {
			cfg.ClusterID = ""
		}
	}
	if f.tokenFile != "" {
		if cfg.JoinToken != "" {
			return usage("--join-token and --join-token-file: want one of them")
		}
		data, err := os.ReadFile(f.tokenFile)
		if err != nil {
			return usage("--join-token-file: %w", err)
		}
		cfg.JoinToken = strings.TrimSpace(string(data))
	}
	cfg.Version = Version
	if err := cfg.Validate(); err != nil {
		return &usageError{err}
	}
	return nil
}

// advertised says where others reach a node that listens elsewhere, or on every address of the machine. Without --advertise those
// know it by the machine's name.
func (f *serveFlags) advertised(cfg *node.Config) error {
	for _, a := range []struct {
		listen string
		to     *string
	}{{cfg.HTTPAddr, &cfg.AdvertiseHTTP}, {cfg.PeerAddr, &cfg.AdvertisePeer}, {cfg.GossipAddr, &cfg.AdvertiseGossip}} {
		host, port, err := net.SplitHostPort(a.listen)
		if err != nil {
			continue // Validate says so
		}
		everywhere := host == "" || net.ParseIP(host).IsUnspecified()
		switch {
		case f.advertise != "":
			host = f.advertise
		case everywhere && len(cfg.Peers) == 0:
			if host, err = os.Hostname(); err != nil {
				return usage("--advertise: where do others reach this machine? It does not know its name: %w", err)
			}
		default:
			continue
		}
		*a.to = net.JoinHostPort(host, port)
	}
	return nil
}

func (a *app) serveCmd() *cobra.Command {
	cfg := node.DefaultConfig()
	return a.serveCmdOf(&cfg, new(serveFlags))
}

// serveCmdOf is the command with its settings in cfg and o.
func (a *app) serveCmdOf(cfg *node.Config, o *serveFlags) *cobra.Command {
	cmd := &cobra.Command{
		Use: "serve", Short: "Run a node", Args: cobra.NoArgs,
		Long: serveLong,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := o.complete(cmd, cfg); err != nil {
				return err
			}
			log, err := a.logger(o.logFormat, o.logLevel)
			if err != nil {
				return err
			}
			if cfg.Now, err = testClock(log); err != nil {
				return err
			}
			if cfg.VolatileDisk, err = testDisk(log); err != nil {
				return err
			}
			if os.Getenv("GOGC") == "" {
				debug.SetGCPercent(nodeGOGC)
			}
			if os.Getenv("GOMEMLIMIT") == "" {
				debug.SetMemoryLimit(nodeMemoryLimit)
			}
			if err := hugePages(nodeHugeHeap); err != nil {
				log.Debug("the heap has no huge pages", "err", err)
			}
			if os.Getenv("GOMAXPROCS") == "" {
				runtime.GOMAXPROCS(runtime.GOMAXPROCS(0) + nodeSpareProcs)
			}
			n, err := node.Open(cmd.Context(), *cfg, log)
			if err != nil {
				return err
			}
			if o.debug != "" {
				l, err := net.Listen("tcp", o.debug)
				if err != nil {
					return fmt.Errorf("listen on %s for --debug: %w", o.debug, err)
				}
				defer l.Close()
				go func() { _ = http.Serve(l, profiles()) }() // until the listener is closed
			}
			return n.Run(cmd.Context())
		},
	}
	f := cmd.Flags()
	f.SetNormalizeFunc(func(_ *pflag.FlagSet, name string) pflag.NormalizedName {
		switch name { // short forms
		case "id":
			name = "node-id"
		case "port":
			name = "http-port"
		}
		return pflag.NormalizedName(name)
	})
	f.StringVar(&o.config, "config", "", "YAML file with settings")
	f.StringVar(&cfg.Dir, "data", "", "data directory")
	f.BoolVar(&cfg.PublicWebhooks, "public-webhooks", false, "webhooks go to public addresses only")
	f.BoolVar(&cfg.Bootstrap, "bootstrap", false, "create the node in an empty data directory; does nothing to one that has data")
	f.StringSliceVar(&cfg.Join, "join", nil, "REST addresses of nodes, host:port, whose cluster an empty data directory joins; does nothing to one that has data")
	f.StringVar(&cfg.JoinToken, "join-token", "", "the token that hanse node token made; rather in HANSE_JOIN_TOKEN or --join-token-file, where nobody sees it")
	f.StringVar(&o.tokenFile, "join-token-file", "", "file with the token")
	f.DurationVar(&cfg.JoinPatience, "join-patience", cfg.JoinPatience, "how long to go on asking to be admitted when nobody can answer")
	f.Uint64Var(&cfg.Replace, "replace", 0, "number of the node, lost for good, whose place the joining one takes")
	f.StringVar(&cfg.Name, "name", "", "the node's name for people, unique in the cluster")
	f.StringVar(&cfg.Zone, "zone", "", "failure domain: copies of a shard go to different zones while there are any")
	f.StringSliceVar(&cfg.Roles, "roles", nil, "services that the node hosts, for example order,payment; all unless given")
	f.Uint64Var(&cfg.ID, "node-id", cfg.ID, "the node's number, from 1; a node that joins gets it from the cluster")
	f.StringVar(&cfg.ClusterID, "cluster", cfg.ClusterID, "the cluster's name, the same on all nodes")
	f.StringVar(&o.host, "host", "127.0.0.1", "address to listen on")
	f.IntVar(&o.port, "http-port", 7400, "first port: REST here, other nodes 2 above, gossip 3 above")
	f.StringVar(&cfg.HTTPAddr, "http", "", "host:port of REST, whatever --host and --http-port say")
	f.StringVar(&cfg.PeerAddr, "peer", "", "host:port for other nodes, whatever --host and --http-port say")
	f.StringVar(&cfg.GossipAddr, "gossip", "", "host:port of gossip, UDP and TCP, whatever --host and --http-port say")
	f.StringVar(&o.advertise, "advertise", "", "name or address at which others reach this node; where it listens unless given, and the machine's name for one that listens everywhere")
	f.StringVar(&o.peers, "peers", "", "all nodes of a cluster that is created at once: id=http-address/peer-address, separated by commas")
	f.IntVar(&cfg.Replicas, "replicas", cfg.Replicas, "copies of each shard")
	f.StringToIntVar(&o.shards, "shards", nil, "shards of services, for example order=6,inventory=6; fixed at bootstrap")
	f.StringVar(&cfg.PSP, "psp", cfg.PSP, "payment provider: a URL, or instant, for tests, which accepts everything and charges nobody; not said: that of the node that admitted this one, or instant")
	f.IntVar(&cfg.MaxInFlight, "max-in-flight", cfg.MaxInFlight, "requests served at once; more get 429")
	f.IntVar(&cfg.SnapshotRate, "snapshot-rate", cfg.SnapshotRate, "MiB a second, at most, that go to replicas which are new or far behind; more is sooner done, and felt more")
	f.DurationVar(&cfg.SlowRequest, "slow-request", cfg.SlowRequest, "requests that take longer are in the log as warnings")
	f.StringVar(&o.debug, "debug", "", "host:port of profiles (net/http/pprof); nobody but you should reach it")
	f.StringVar(&o.logFormat, "log-format", "text", "text or json")
	f.StringVar(&o.logLevel, "log-level", "info", "debug, info, warn or error")
	return cmd
}

// testClockVar is not a setting: it makes a node's clock wrong, for tests of faults (docs/simulator.md).
const testClockVar = "HANSE_TEST_CLOCK"

// testClock returns the clock that the environment asks for: the system's, unless a test wants another.
func testClock(log *slog.Logger) (func() time.Time, error) {
	spec := os.Getenv(testClockVar)
	if spec == "" {
		return time.Now, nil
	}
	now, err := clock.Skewed(spec)
	if err != nil {
		return nil, usage("%s=%q: %w", testClockVar, spec, err)
	}
	log.Warn("the clock of this node is wrong on purpose: for tests only, never with data that matters", "variable", testClockVar, "skew", spec)
	return now, nil
}

// testDiskVar is not a setting: with it a node's disk is one that loses power when the process is killed.
const (
	testDiskVar  = "HANSE_TEST_DISK"
	volatileDisk = "volatile"
)

// testDisk says whether the environment asks for a disk that loses what was not synced when the process is killed.
func testDisk(log *slog.Logger) (volatile bool, err error) {
	switch spec := os.Getenv(testDiskVar); spec {
	case "":
		return false, nil
	case volatileDisk:
		log.Warn("this node holds back what it has not synced: for tests only, never with data that matters", "variable", testDiskVar)
		return true, nil
	default:
		return false, usage("%s=%q: the only disk for tests is %s", testDiskVar, spec, volatileDisk)
	}
}

// profiles serves what go tool pprof reads.
func profiles() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/debug/pprof/", pprof.Index)
	mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	return mux
}

// parsePeers reads id=http/peer,...
func parsePeers(s string) ([]node.Peer, error) {
	if s == "" {
		return nil, nil
	}
	var peers []node.Peer
	for part := range strings.SplitSeq(s, ",") {
		id, addrs, ok := strings.Cut(part, "=")
		http, peer, ok2 := strings.Cut(addrs, "/")
		n, err := strconv.ParseUint(id, 10, 64)
		if !ok || !ok2 || err != nil {
			return nil, usage("--peers: %q is not id=http-address/peer-address", part)
		}
		peers = append(peers, node.Peer{ID: n, HTTP: http, Peer: peer})
	}
	return peers, nil
}

func (a *app) pspCmd() *cobra.Command {
	cfg := psp.DefaultConfig()
	var listen, logFormat, logLevel string
	cmd := &cobra.Command{
		Use: "psp", Short: "Run the simulated payment provider", Args: cobra.NoArgs,
		Long: "Run the simulated payment provider: a real HTTP server with a durable ledger, which misbehaves as it is told.\nIts behavior can be changed while it runs (PUT /v1/behavior), and some payment methods always do the same (pm_declined):\nsee docs/provider.md.",
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			if cfg.Log, err = a.logger(logFormat, logLevel); err != nil {
				return err
			}
			if err := cfg.Behavior.Validate(); err != nil {
				return &usageError{err}
			}
			s, err := psp.New(cfg)
			if err != nil {
				return err
			}
			defer func() {
				if cerr := s.Close(); err == nil {
					err = cerr
				}
			}()
			l, err := net.Listen("tcp", listen)
			if err != nil {
				return fmt.Errorf("listen on %s: %w", listen, err)
			}
			cfg.Log.Info("provider started", "addr", l.Addr().String(), "dir", cfg.Dir)
			return s.Run(cmd.Context(), l)
		},
	}
	f := cmd.Flags()
	f.StringVar(&listen, "listen", "127.0.0.1:7490", "host:port")
	f.StringVar(&cfg.Dir, "data", "", "directory of the ledger; without one it is kept in memory")
	f.BoolVar(&cfg.Sync, "sync", true, "answer only when the ledger is on disk")
	f.Uint64Var(&cfg.Seed, "seed", cfg.Seed, "seed of the misbehavior")
	f.Int64Var(&cfg.Behavior.LatencyMS, "latency-ms", 0, "milliseconds that each answer takes")
	f.Int64Var(&cfg.Behavior.JitterMS, "jitter-ms", 0, "milliseconds, at most, that are added to --latency-ms at random")
	f.Float64Var(&cfg.Behavior.DeclineRate, "decline-rate", 0, "authorizations declined, 0 to 1")
	f.Float64Var(&cfg.Behavior.TimeoutRate, "timeout-rate", 0, "calls carried out but not answered, 0 to 1")
	f.Float64Var(&cfg.Behavior.ErrorRate, "error-rate", 0, "requests answered 500 before anything is done, 0 to 1")
	f.Float64Var(&cfg.Behavior.ErrorAfterRate, "error-after-rate", 0, "requests answered 500 although done, 0 to 1")
	f.StringVar(&cfg.Behavior.CallbackURL, "callback-url", "", "URL to which each operation is reported")
	f.Float64Var(&cfg.Behavior.DuplicateRate, "duplicate-rate", 0, "callbacks that come twice, 0 to 1")
	f.StringVar(&logFormat, "log-format", "text", "text or json")
	f.StringVar(&logLevel, "log-level", "info", "debug, info, warn or error")
	return cmd
}
