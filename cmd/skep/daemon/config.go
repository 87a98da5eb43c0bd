package daemon

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"strings"

	"github.com/spf13/cobra"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/internal/fault"
)

// Config is what a daemon is started with. Only paths and names: nothing here weakens the isolation of containers or the
// authentication of nodes.
type Config struct {
	// DataDir holds everything that must survive a restart.
	DataDir string
	// CDISpecDirs are where CDI files are, absolute after parsing; those of a later one count more.
	CDISpecDirs []string
	// Socket is the path of the unix socket for people.
	Socket string
	// People is where users may come over TCP.
	People peopleConfig
	// MetricsAddress is host:port for Prometheus, or "".
	MetricsAddress string
	// KeyProvider says what keeps the node's own key; "" is ProviderFile.
	KeyProvider KeyProvider
	// Credentials is the service manager's directory of credentials, or "".
	Credentials string
	// Runtime is the path of the skep-runtime program, or of an OCI runtime that creates containers in its place.
	Runtime string
	// BuiltinImage is an image archive that is loaded at start, or "".
	BuiltinImage string
	// CgroupParent is the cgroup below which containers are.
	CgroupParent string
	// BridgeSubnet is where the node's containers get their addresses.
	BridgeSubnet netip.Prefix
	// AdvertiseAddress is what other nodes are told from now on, as in `swarm join`, or "" for what they were told before.
	AdvertiseAddress string
	// Labels describe the machine to constraints, as engine.labels.NAME.
	Labels map[string]string
	// Generic is what the machine has of generic resources, for services that reserve some.
	Generic []*api.GenericResource
	// Version of this program.
	Version string
	Logger  *slog.Logger
}

// gcPercent makes the heap grow by half of what lives before it is collected. Most of what a manager has in memory is its state,
// which lives long: the usual 100 would double its memory and save little.
const gcPercent = 50

// flags are the command line's form of a Config.
type flags struct {
	config            Config
	people            peopleFlags
	bridge, provider  string
	metrics           string
	labels, generic   []string
	logLevel, logForm string
}

// Command returns `skep daemon`.
func Command(version string) *cobra.Command {
	f := flags{}
	command := &cobra.Command{
		Use:   "daemon [OPTIONS]",
		Short: "Run this machine's daemon",
		Long: "Run this machine's daemon: the agent, and the manager when the node is one.\n\n" +
			"Containers are not its children: they go on when it ends, and it finds them when it is back.",
		Args: cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) error {
			cfg, err := f.parse(version)
			if err != nil {
				return err
			}
			debug.SetGCPercent(gcPercent)
			d, err := New(command.Context(), cfg)
			if err != nil {
				return err
			}
			return d.Run(command.Context())
		},
	}
	set := command.Flags()
	set.StringVar(&f.config.DataDir, "data-dir", "/var/lib/skep", "Directory of everything that must survive a restart")
	set.StringVar(&f.config.Socket, "socket", "/run/skep/skep.sock", "Unix socket to serve; root and the group skep may use it")
	set.StringArrayVarP(&f.people.hosts, "host", "H", nil, "Address to serve users on, beside the socket (format: tcp://<ip|interface>[:port])")
	set.BoolVar(&f.people.verify, "tlsverify", false, "Serve users over TCP with mutual TLS, as --host needs")
	set.StringVar(&f.people.cacert, "tlscacert", "", "CA that vouches for external users, instead of the swarm's for users")
	set.StringVar(&f.people.cert, "tlscert", "", "Certificate that external users know this daemon by")
	set.StringVar(&f.people.key, "tlskey", "", "Key of --tlscert")
	set.StringVar(&f.metrics, "metrics-addr", "", "Address to serve metrics on for Prometheus (format: <ip>[:port]); one that others can reach needs "+
		"--tlsverify and its files")
	set.StringVar(&f.provider, "key-provider", string(ProviderFile), "What keeps the key of this node's disk while the swarm is not autolocked "+
		`("file", "tpm2", "systemd-host", "credential", "auto")`)
	set.StringVar(&f.config.Runtime, "runtime", beside("skep-runtime"), "Path of skep-runtime, or of an OCI runtime that is to create the containers, such as runc")
	set.StringVar(&f.config.BuiltinImage, "builtin-image", beside("../lib/skep/skep-hello.tar"), "Image archive to load at start; empty for none")
	set.StringVar(&f.config.CgroupParent, "cgroup-parent", "skep", "Cgroup below which containers are")
	set.StringArrayVar(&f.config.CDISpecDirs, "cdi-spec-dir", []string{"/etc/cdi", "/var/run/cdi"}, "Directory of CDI files, which describe devices; later ones count more")
	set.StringVar(&f.bridge, "bridge-subnet", "172.31.240.0/20", "Subnet of this node's containers")
	set.StringVar(&f.config.AdvertiseAddress, "advertise-addr", "", "Address or interface to tell other nodes from now on (format: <ip|interface>[:port])")
	set.StringArrayVar(&f.labels, "label", nil, "Set a label on this engine, KEY=VALUE")
	set.StringArrayVar(&f.generic, "node-generic-resource", nil, "Resource that tasks can reserve, KIND=ID for each that has an id, or KIND=NUMBER")
	set.StringVar(&f.logLevel, "log-level", "info", `Level of the log ("debug", "info", "warn", "error")`)
	set.StringVar(&f.logForm, "log-format", "text", `Form of the log ("text", "json")`)
	return command
}

// beside returns the path of a file relative to the folder of this program.
func beside(name string) string {
	self, err := os.Executable()
	if err != nil {
		return name
	}
	return filepath.Join(filepath.Dir(self), name)
}

// parse checks the flags and returns all that is wrong at once.
func (f flags) parse(version string) (Config, error) {
	cfg := f.config
	cfg.Version = version
	var errs []error
	subnet, err := netip.ParsePrefix(f.bridge)
	switch {
	case err != nil:
		errs = append(errs, fmt.Errorf("--bridge-subnet: %w", err))
	case !subnet.Addr().Is4() || subnet.Bits() < 16 || subnet.Bits() > 29:
		errs = append(errs, fmt.Errorf("--bridge-subnet %s: give an IPv4 subnet from /16 to /29", subnet))
	}
	cfg.BridgeSubnet = subnet.Masked()
	cfg.Labels = map[string]string{}
	for _, label := range f.labels {
		key, value, _ := strings.Cut(label, "=")
		if key == "" {
			errs = append(errs, fmt.Errorf("--label %q: want KEY=VALUE", label))
		}
		cfg.Labels[key] = value
	}
	if cfg.Generic, err = parseGeneric(f.generic); err != nil {
		errs = append(errs, err)
	}
	if strings.ContainsAny(cfg.CgroupParent, "./ ") || cfg.CgroupParent == "" {
		errs = append(errs, fmt.Errorf("--cgroup-parent %q: give one name without dots, slashes and spaces", cfg.CgroupParent))
	}
	if !strings.Contains(cfg.Runtime, "/") { // as in a shell
		if found, err := exec.LookPath(cfg.Runtime); err == nil {
			cfg.Runtime = found
		}
	}
	for _, path := range []*string{&cfg.DataDir, &cfg.Socket, &cfg.Runtime} {
		absolute, err := filepath.Abs(*path)
		if err != nil {
			errs = append(errs, err)
		}
		*path = absolute
	}
	for i, dir := range cfg.CDISpecDirs {
		if cfg.CDISpecDirs[i], err = filepath.Abs(dir); err != nil {
			errs = append(errs, err)
		}
	}
	cfg.People, err = f.people.parse(f.metrics != "")
	errs = append(errs, err)
	cfg.MetricsAddress, err = metricsAddress(f.metrics, cfg.People)
	errs = append(errs, err)
	if cfg.KeyProvider = KeyProvider(f.provider); !cfg.KeyProvider.valid() {
		errs = append(errs, fmt.Errorf("--key-provider %q: want file, tpm2, systemd-host, credential or auto", f.provider))
	}
	cfg.Credentials = os.Getenv("CREDENTIALS_DIRECTORY") // see systemd.exec(5)
	cfg.Logger, err = f.logger()
	return cfg, fault.Wrap(fault.Invalid, errors.Join(append(errs, err)...))
}

func (f flags) logger() (*slog.Logger, error) {
	var level slog.Level
	if err := level.UnmarshalText([]byte(f.logLevel)); err != nil {
		return nil, fmt.Errorf("--log-level: %w", err)
	}
	options := &slog.HandlerOptions{Level: level}
	switch f.logForm {
	case "text":
		return slog.New(slog.NewTextHandler(os.Stderr, options)), nil
	case "json":
		return slog.New(slog.NewJSONHandler(os.Stderr, options)), nil
	}
	return nil, fmt.Errorf("--log-format %q: want text or json", f.logForm)
}
