package cli

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/skep-io/skep/cmd/skep/cli/client"
	"github.com/skep-io/skep/cmd/skep/cli/contexts"
	"github.com/skep-io/skep/cmd/skep/cli/flagvalue"
	"github.com/skep-io/skep/internal/fault"
)

// The environment variables, which have Docker's meanings.
const (
	hostVariable      = "SKEP_HOST"
	contextVariable   = "SKEP_CONTEXT"
	verifyVariable    = "SKEP_TLS_VERIFY"
	certPathVariable  = "SKEP_CERT_PATH"
	configDirVariable = "SKEP_CONFIG"
)

// whichFlags say which daemon to speak to.
type whichFlags struct {
	host, context     string
	verify            bool
	cacert, cert, key string
}

func (w *whichFlags) register(flags *pflag.FlagSet) {
	flags.StringVarP(&w.host, "host", "H", client.DefaultHost, "Daemon to connect to: unix:///PATH or tcp://HOST[:PORT] (env "+hostVariable+")")
	flags.StringVar(&w.context, "context", "", "Name of the context to use (env "+contextVariable+")")
	flags.BoolVar(&w.verify, "tlsverify", false, "Use mutual TLS, as tcp:// needs (env "+verifyVariable+")")
	flags.StringVar(&w.cacert, "tlscacert", "", "Trust managers whose certificates this CA signed (default ca.pem in "+certPathVariable+")")
	flags.StringVar(&w.cert, "tlscert", "", "Your certificate (default cert.pem in "+certPathVariable+")")
	flags.StringVar(&w.key, "tlskey", "", "Your private key (default key.pem in "+certPathVariable+")")
}

// env returns an environment variable, or "".
func (p *program) env(name string) string {
	value, _ := p.opts.LookupEnv(name)
	return value
}

// endpoint returns the daemon to speak to, by Docker's order: the flags, the environment, the context in use.
func (p *program) endpoint(cmd *cobra.Command) (client.Endpoint, error) {
	root := cmd.Root().PersistentFlags()
	if root.Changed("host") && root.Changed("context") {
		return client.Endpoint{}, &usageError{command: cmd, err: errors.New("--host and --context exclude each other")}
	}
	if root.Changed("host") {
		return p.direct(p.which.host)
	}
	if host := p.env(hostVariable); host != "" && p.which.context == "" {
		return p.direct(host)
	}
	name, err := p.contextName()
	if err != nil {
		return client.Endpoint{}, err
	}
	c, err := p.contexts().Get(name)
	return c.Endpoint, err
}

// contextName returns the context that counts where no host is given.
func (p *program) contextName() (string, error) {
	switch {
	case p.which.context != "":
		return p.which.context, nil
	case p.env(hostVariable) != "":
		return contexts.Default, nil
	case p.env(contextVariable) != "":
		return p.env(contextVariable), nil
	}
	return p.contexts().Current()
}

// contexts returns the person's contexts.
func (p *program) contexts() contexts.Store { return contexts.Store{Dir: p.configDir()} }

// configDir returns where the person's settings are.
func (p *program) configDir() string {
	switch {
	case p.env(configDirVariable) != "":
		return p.env(configDirVariable)
	case p.env("XDG_CONFIG_HOME") != "":
		return filepath.Join(p.env("XDG_CONFIG_HOME"), "skep")
	}
	return filepath.Join(p.env("HOME"), ".config", "skep")
}

// direct returns the daemon at a host, with the certificate that flags and environment name.
func (p *program) direct(host string) (client.Endpoint, error) {
	to := client.Endpoint{Host: host}
	if !client.IsRemote(host) {
		return to, nil
	}
	if !p.which.verify && p.env(verifyVariable) == "" {
		return to, fault.New(fault.Invalid, "%s is reached with mutual TLS only: add --tlsverify with --tlscacert, --tlscert and --tlskey, "+
			"or use a context (`skep context import`)", host)
	}
	var err error
	to.TLS, err = p.readTLS(p.which.cacert, p.which.cert, p.which.key)
	return to, err
}

// readTLS reads certificate and key; a file that is not named is where Docker looks for it.
func (p *program) readTLS(cacert, cert, key string) (t client.TLS, err error) {
	dir := p.env(certPathVariable)
	if dir == "" {
		dir = p.configDir()
	}
	for _, file := range []struct {
		data         *[]byte
		named, usual string
		secret       bool
	}{{&t.CA, cacert, "ca.pem", false}, {&t.Cert, cert, "cert.pem", false}, {&t.Key, key, "key.pem", true}} {
		if file.named == "" {
			file.named = filepath.Join(dir, file.usual)
		}
		if *file.data, err = readPEM(file.named, file.secret); err != nil {
			return client.TLS{}, err
		}
	}
	return t, nil
}

// maxPEM bounds the file of a certificate or key in bytes.
const maxPEM = 64 << 10

// readPEM reads a file that the command line names; one with a secret must be for its owner's eyes only.
func readPEM(name string, secret bool) ([]byte, error) {
	info, err := os.Stat(name)
	if err != nil {
		return nil, flagvalue.FileFault(err)
	}
	if info.Size() > maxPEM {
		return nil, fault.New(fault.Invalid, "%s is over %d bytes: it is no certificate and no key", name, maxPEM)
	}
	if secret && info.Mode().Perm()&0o077 != 0 {
		return nil, fault.New(fault.Invalid, "others may read the key in %s (%v): if nobody did, run: chmod 600 %s", name, info.Mode().Perm(), name)
	}
	data, err := os.ReadFile(name)
	if err != nil {
		return nil, flagvalue.FileFault(err)
	}
	if len(data) == 0 {
		return nil, fault.Wrap(fault.Invalid, fmt.Errorf("%s is empty", name))
	}
	return data, nil
}
