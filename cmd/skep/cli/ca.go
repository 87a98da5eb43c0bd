package cli

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/cmd/skep/cli/client"
	"github.com/skep-io/skep/cmd/skep/cli/flagvalue"
	"github.com/skep-io/skep/cmd/skep/cli/progress"
	"github.com/skep-io/skep/internal/fault"
)

const (
	// rotationPause is the time between two looks at a rotation, and maxRotationBreaks how many of them may fail in a row: longer than
	// the election of a leader and the restart of a daemon take.
	rotationPause     = 200 * time.Millisecond
	maxRotationBreaks = 150
)

// caFlags are those of `swarm ca`.
type caFlags struct {
	rotate, abort, detach, quiet bool
	cert, key                    string
	external                     flagvalue.ExternalCA
	expiry                       time.Duration
}

func (p *program) swarmCA() *cobra.Command {
	var flags caFlags
	cmd := &cobra.Command{
		Use: "ca [OPTIONS]", Short: "Display and rotate the root CA", Args: noArgs,
		Long: "Display and rotate the root CA.\n\n" +
			"A rotation gives every node a certificate by the new root, and ends once each of them has one: a node that is down is waited for.\n" +
			"It goes on when this command does not. Join tokens are others afterwards.",
	}
	f := cmd.Flags()
	f.BoolVar(&flags.rotate, "rotate", false, "Rotate the swarm CA - if no certificate or key are provided, new ones will be generated")
	f.BoolVar(&flags.abort, "abort", false, "Go back to the root CA of before the rotation that is under way")
	f.VarP(pemFile{&flags.cert}, "ca-cert", "", "Path to the PEM-formatted root CA certificate to use for the new cluster")
	f.VarP(pemFile{&flags.key}, "ca-key", "", "Path to the PEM-formatted root CA key to use for the new cluster")
	f.Var(&flags.external, "external-ca", "Specifications of one or more certificate signing endpoints")
	f.DurationVar(&flags.expiry, "cert-expiry", defaultCertExpiry, "Validity period for node certificates (ns|us|ms|s|m|h)")
	f.BoolVarP(&flags.detach, "detach", "d", false, "Exit immediately instead of waiting for the root rotation to converge")
	f.BoolVarP(&flags.quiet, "quiet", "q", false, "Suppress progress output")
	cmd.PreRunE = func(cmd *cobra.Command, _ []string) error { return flags.check(cmd) }
	cmd.RunE = p.connected(func(ctx context.Context, c *client.Client, _ []string) error {
		if !flags.rotate && !flags.abort {
			return p.showRoot(ctx, c)
		}
		return p.rotateRoot(ctx, c, &flags, cmd.Flags().Changed("cert-expiry"))
	})
	return cmd
}

// pemFile is the name of a file, with Docker's word for it.
type pemFile struct{ name *string }

// Set takes the name.
func (f pemFile) Set(text string) error {
	*f.name = text
	return nil
}

// String returns the name.
func (f pemFile) String() string {
	if f.name == nil {
		return ""
	}
	return *f.name
}

// Type is Docker's word.
func (f pemFile) Type() string { return "pem-file" }

// check refuses what makes no sense together.
func (f *caFlags) check(cmd *cobra.Command) error {
	for _, name := range []string{"ca-cert", "ca-key", "cert-expiry", "external-ca"} {
		if cmd.Flags().Changed(name) && !f.rotate {
			return &usageError{command: cmd, err: fmt.Errorf("`--%s` flag requires the `--rotate` flag to update the CA", name)}
		}
		if err := onlyOne(cmd, "abort", name); err != nil {
			return err
		}
	}
	if f.external.CACert != "" && f.cert != "" {
		return &usageError{command: cmd, err: errors.New("give the root certificate of the external CA once: as cacert= or as --ca-cert")}
	}
	return nil
}

// showRoot prints the root certificate, and says so when it is about to change.
func (p *program) showRoot(ctx context.Context, c *client.Client) error {
	answer, err := c.Control.GetRootCA(ctx, &api.GetRootCARequest{})
	if err != nil {
		return err
	}
	if r := answer.GetRotation(); r != nil {
		done := min(r.GetIssued(), r.GetTrusting())
		p.warn([]string{fmt.Sprintf("a rotation of the root CA is under way: %d of %d nodes are done; waiting for %s", done, r.GetNodes(), progress.WaitedFor(r))})
	}
	return p.printRoot(answer.GetCertificate())
}

func (p *program) printRoot(certificate []byte) error {
	return p.printf("%s\n", strings.TrimSpace(string(certificate)))
}

// rotateRoot begins or aborts a rotation, and waits for its end.
func (p *program) rotateRoot(ctx context.Context, c *client.Client, flags *caFlags, expiry bool) error {
	request, err := flags.request()
	if err != nil {
		return err
	}
	if expiry {
		request.CertExpiry = durationpb.New(flags.expiry)
	}
	begun, err := c.Control.RotateRootCA(ctx, request)
	clear(request.Key)
	if err != nil || flags.detach {
		return err
	}
	if err := p.awaitRotation(ctx, c, begun, flags.abort, p.display(flags.quiet)); err != nil || flags.quiet {
		return err
	}
	return p.printRoot(begun.GetCertificate())
}

// request reads the files that the flags name.
func (f *caFlags) request() (*api.RotateRootCARequest, error) {
	request := &api.RotateRootCARequest{Abort: f.abort}
	var err error
	if name := cmp.Or(f.cert, f.external.CACert); name != "" {
		if request.Certificate, err = readPEM(name, false); err != nil {
			return nil, fmt.Errorf("read the root certificate: %w", err)
		}
	}
	if f.key != "" {
		if request.Key, err = readPEM(f.key, true); err != nil {
			return nil, fmt.Errorf("read the root key: %w", err)
		}
	}
	if f.external.URL != "" {
		request.External = &api.ExternalCA{Url: f.external.URL}
	}
	return request, nil
}

// awaitRotation shows how far a rotation is until it has ended, in one way or another.
func (p *program) awaitRotation(ctx context.Context, c *client.Client, begun *api.RotateRootCAResponse, aborted bool, display progress.Display) error {
	breaks := 0
	for {
		now, err := c.Control.GetRootCA(ctx, &api.GetRootCARequest{})
		switch kind := fault.KindOf(err); {
		case ctx.Err() != nil:
			return &interruptedError{check: "skep swarm ca"}
		case err != nil && (breaks >= maxRotationBreaks || kind != fault.Unavailable && kind != fault.NotLeader):
			return err
		case err != nil:
			breaks++
		case now.GetRotation().GetId() != begun.GetRotationId():
			return rotationEnd(now, begun, aborted)
		default:
			breaks = 0
			if err := display.Show(progress.RotationLines(now.GetRotation(), digestOf(begun.GetCertificate()))); err != nil {
				return err
			}
		}
		select {
		case <-ctx.Done():
		case <-time.After(cmp.Or(p.opts.RetryPause, rotationPause)):
		}
	}
}

// rotationEnd says how a rotation ended that is not under way any more. The root that an aborted one leads to was there before.
func rotationEnd(now *api.GetRootCAResponse, begun *api.RotateRootCAResponse, aborted bool) error {
	if bytes.Equal(now.GetCertificate(), begun.GetCertificate()) && !(aborted && now.GetRotation() != nil) {
		return nil
	}
	return fault.New(fault.Conflict, "this rotation of the root CA did not come to its end: it was aborted, or another one took its place; "+
		"`skep swarm ca` shows what is")
}

// digestOf returns a certificate's digest as Docker prints it.
func digestOf(certificate []byte) string {
	if block, _ := pem.Decode(certificate); block != nil {
		certificate = block.Bytes
	}
	return fmt.Sprintf("sha256:%x", sha256.Sum256(certificate))
}
