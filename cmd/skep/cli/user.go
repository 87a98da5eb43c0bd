package cli

import (
	"cmp"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/cmd/skep/cli/client"
	"github.com/skep-io/skep/cmd/skep/cli/contexts"
	"github.com/skep-io/skep/cmd/skep/cli/flagvalue"
	"github.com/skep-io/skep/cmd/skep/cli/view"
	"github.com/skep-io/skep/internal/fault"
)

// contextSuffix ends the names of files with an exported context.
const contextSuffix = ".skepcontext"

func (p *program) userCommand() *cobra.Command {
	return group("user", "Manage the people who talk to managers over TCP", p.userCreate(), p.userList(), p.completed(userWords, p.userRevoke()))
}

// userFlags are those of user create.
type userFlags struct {
	role, address, output string
	ttl                   time.Duration
	external              bool
	labels                flagvalue.Labels
}

func (p *program) userCreate() *cobra.Command {
	f := &userFlags{}
	cmd := &cobra.Command{
		Use: "create [OPTIONS] USER", Short: "Create a user, and the file by which that person reaches the swarm",
		Long: "Create a user, and the file by which that person reaches the swarm.\n\n" +
			"The file has a private key that was made here, and a certificate of the swarm's CA.\n" +
			"Hand it over so that nobody else gets it; the person runs 'skep context import'.",
		Args: exactArgs(1),
	}
	flags := cmd.Flags()
	flags.StringVar(&f.role, "role", "", `What the user may do ("admin", "operator", "viewer")`)
	flags.DurationVar(&f.ttl, "ttl", 0, "How long the certificate lives (default 2160h)")
	flags.StringVar(&f.address, "address", "", "Where the user reaches a manager, tcp://HOST[:PORT] (default this daemon's --host)")
	flags.StringVarP(&f.output, "output", "o", "", `File to write, "-" for STDOUT (default USER`+contextSuffix+")")
	flags.BoolVar(&f.external, "external", false, "The user has a certificate of the CA in the daemons' --tlscacert: issue none")
	flags.VarP(&f.labels, "label", "l", "User labels")
	cmd.PreRunE = func(cmd *cobra.Command, _ []string) error {
		for _, other := range []string{"ttl", "address", "output"} {
			if err := onlyOne(cmd, "external", other); err != nil {
				return err
			}
		}
		return nil
	}
	cmd.RunE = p.connected(func(ctx context.Context, c *client.Client, args []string) error {
		request, err := f.request(args[0])
		if err != nil {
			return err
		}
		if f.external {
			_, err := c.Control.CreateUser(ctx, request)
			if err != nil {
				return err
			}
			return p.printf("%s\n", args[0])
		}
		return p.issueUser(ctx, c, f, request)
	})
	return cmd
}

// request returns the wish without a certificate request.
func (f *userFlags) request(name string) (*api.CreateUserRequest, error) {
	role := api.UserRole(api.UserRole_value["USER_ROLE_"+strings.ToUpper(f.role)])
	if role == api.UserRole_USER_ROLE_UNSPECIFIED {
		return nil, fault.New(fault.Invalid, "--role %q: say what the user may do: admin, operator or viewer", f.role)
	}
	request := &api.CreateUserRequest{Spec: &api.UserSpec{
		Annotations: &api.Annotations{Name: name, Labels: f.labels}, Role: role, External: f.external,
	}}
	if f.ttl != 0 {
		request.Ttl = durationpb.New(f.ttl)
	}
	return request, nil
}

// issueUser creates a user with a certificate, and writes what the person needs. The file is made first: a user whose key was lost
// would have to be revoked.
func (p *program) issueUser(ctx context.Context, c *client.Client, f *userFlags, request *api.CreateUserRequest) error {
	name := request.GetSpec().GetAnnotations().GetName()
	host, err := f.host(ctx, c)
	if err != nil {
		return err
	}
	key, err := newUserKey()
	if err != nil {
		return err
	}
	request.Csr = key.csr
	file := cmp.Or(f.output, name+contextSuffix)
	out, err := p.newFile(file, "a user's key")
	if err != nil {
		return err
	}
	answer, err := c.Control.CreateUser(ctx, request)
	if err == nil {
		err = contexts.Export(out, contexts.Context{
			Name: name, Description: f.role + " " + name,
			Endpoint: client.Endpoint{
				Host: host, TLS: client.TLS{CA: answer.GetRootCertificates(), Cert: answer.GetUser().GetCertificate(), Key: key.pem},
			},
		})
	}
	if err = out.finish(err); err != nil {
		return err
	}
	return p.writeUserCreated(file, view.NewUser(answer.GetUser()))
}

// writeUserCreated says what there is now, and what to do with it, where that is not in the way of the file itself.
func (p *program) writeUserCreated(file string, u view.User) error {
	to := p.out
	if file == "-" {
		to, file = p.err, "the output stream"
	}
	_, err := fmt.Fprintf(to, "User %s has the role %s until %s.\n"+
		"Whoever has %s is that user: hand it over so that nobody else gets it. There, run:\n\n"+
		"    skep context import %s FILE\n    skep context use %s\n",
		u.Spec.Name, u.Spec.Role, prettyTime(*u.ExpiresAt), file, u.Spec.Name, u.Spec.Name)
	return err
}

// host returns where the user reaches a manager.
func (f *userFlags) host(ctx context.Context, c *client.Client) (string, error) {
	if f.address != "" {
		if err := client.CheckHost(f.address); err != nil || !client.IsRemote(f.address) {
			return "", fault.New(fault.Invalid, "--address %q: want tcp://HOST[:PORT] of a manager", f.address)
		}
		return f.address, nil
	}
	info, err := c.Daemon.GetInfo(ctx, &api.GetInfoRequest{})
	if err != nil {
		return "", err
	}
	if len(info.GetPeopleAddresses()) == 0 {
		return "", fault.New(fault.Precondition, "this daemon does not serve users of the swarm's CA over TCP: start it with --host tcp://ADDRESS --tlsverify, "+
			"or say with --address where a manager does")
	}
	return info.GetPeopleAddresses()[0], nil
}

// userKey is a private key that was made here, and the request for a certificate; both are PEM.
type userKey struct{ pem, csr []byte }

func newUserKey() (userKey, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return userKey{}, fmt.Errorf("make a key: %w", err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return userKey{}, fmt.Errorf("encode the key: %w", err)
	}
	request, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		return userKey{}, fmt.Errorf("make a certificate request: %w", err)
	}
	return userKey{
		pem: pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}),
		csr: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: request}),
	}, nil
}
