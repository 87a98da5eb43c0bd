package logforward

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/internal/logdriver"
	"github.com/skep-io/skep/runtime/logfile"
)

const (
	// patience bounds how long a server may take for a connection, or for a line.
	patience = 10 * time.Second
	// maxCA is the most bytes of a file of certificates: those of a whole system have some 200 KB.
	maxCA = 1 << 20
	// maxName is the most bytes of an APP-NAME (RFC 5424, section 6).
	maxName = 48
)

// errTooLong is returned for a line that no message can hold on its way.
var errTooLong = errors.New("the line is too long for a message")

// sink is where the lines of one task go.
type sink struct {
	dial   func(context.Context) (net.Conn, error)
	encode func(logfile.Entry) []byte
	conn   net.Conn // or nil
	// gone is closed once a stream is, by either side; nil without one: datagrams fail when they are sent.
	gone chan struct{}
}

// newSink returns the way of a task's lines, not connected yet.
func (f *Forwarder) newSink(t *api.Task) (sink, error) {
	d, err := logdriver.Parse(t.GetSpec().GetLogDriver())
	if err != nil {
		return sink{}, err
	}
	tag, err := f.cfg.Expand(t, d.Tag)
	if err != nil {
		return sink{}, fmt.Errorf("tag: %w", err)
	}
	name := identifier(tag)
	if d.Name == logdriver.Journald {
		fields := journalFields(t, name, d.Labels)
		return sink{
			dial:   dialer(logdriver.Syslog{Network: logdriver.Unixgram, Address: f.cfg.Journal}),
			encode: func(e logfile.Entry) []byte { return journalEntry(fields, e) },
		}, nil
	}
	m := message{Syslog: d.Syslog, host: printable(f.cfg.Hostname), name: name, task: t.GetId()}
	return sink{dial: dialer(d.Syslog), encode: m.encode}, nil
}

// send sends an entry, connecting first if need be. After an error there is no connection.
func (s *sink) send(ctx context.Context, e logfile.Entry) error {
	select {
	case <-s.gone: // nil blocks for ever
		s.close()
	default:
	}
	if s.conn == nil {
		dialing, cancel := context.WithTimeout(ctx, patience)
		defer cancel()
		conn, err := s.dial(dialing)
		if err != nil {
			return err
		}
		s.conn = conn
		if conn.LocalAddr().Network() == "tcp" { // with TLS, too
			s.watch()
		}
	}
	conn := s.conn
	if err := conn.SetWriteDeadline(time.Now().Add(patience)); err != nil {
		return s.broken(err)
	}
	// A daemon that ends does not wait for a slow server.
	stop := context.AfterFunc(ctx, func() { _ = conn.SetWriteDeadline(time.Unix(1, 0)) })
	defer stop()
	if _, err := conn.Write(s.encode(e)); errors.Is(err, syscall.EMSGSIZE) {
		return errTooLong
	} else if err != nil {
		return s.broken(err)
	}
	return nil
}

func (s *sink) broken(err error) error {
	s.close()
	return err
}

// watch closes a stream as soon as its server does: servers close idle ones, and the kernel takes one more line for each, that nobody gets.
func (s *sink) watch() {
	conn, gone := s.conn, make(chan struct{})
	s.gone = gone
	go func() {
		_, _ = io.Copy(io.Discard, conn) // a server of syslog has nothing to say
		_ = conn.Close()
		close(gone)
	}()
}

func (s *sink) close() {
	if s.conn != nil {
		_ = s.conn.Close() // it has taken what it has taken
		s.conn = nil
	}
	if s.gone != nil {
		<-s.gone
		s.gone = nil
	}
}

// dialer returns what connects to a server.
func dialer(to logdriver.Syslog) func(context.Context) (net.Conn, error) {
	return func(ctx context.Context) (net.Conn, error) {
		if to.Network != logdriver.TLS {
			return new(net.Dialer).DialContext(ctx, to.Network, to.Address)
		}
		cfg := &tls.Config{MinVersion: tls.VersionTLS12}
		if to.CA != "" {
			roots, err := readCA(to.CA)
			if err != nil {
				return nil, err
			}
			cfg.RootCAs = roots
		}
		return (&tls.Dialer{Config: cfg}).DialContext(ctx, "tcp", to.Address)
	}
}

// readCA reads certificates. What else is in the file is not told to anybody.
func readCA(path string) (*x509.CertPool, error) {
	// Whoever writes to its directory may put a FIFO there at any time: opening one to read waits for a writer, without O_NONBLOCK.
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("syslog-tls-ca-cert: %w", err)
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("syslog-tls-ca-cert: %w", err)
	}
	if !st.Mode().IsRegular() {
		return nil, fmt.Errorf("syslog-tls-ca-cert: %s is no regular file", path)
	}
	data, err := io.ReadAll(io.LimitReader(f, maxCA))
	if err != nil {
		return nil, fmt.Errorf("syslog-tls-ca-cert: %w", err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(data) {
		return nil, fmt.Errorf("syslog-tls-ca-cert: there is no PEM certificate in %s", path)
	}
	return roots, nil
}

// identifier makes a tag into what the lines are called (F4).
func identifier(tag string) string {
	name := "skep/" + strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', r == '-', r == '_', r == '.':
			return r
		}
		return '_'
	}, tag)
	return name[:min(len(name), maxName)]
}

// printable makes a host name into one of RFC 5424: visible ASCII, or "-".
func printable(host string) string {
	const most = 255
	host = strings.Map(func(r rune) rune {
		if r <= ' ' || r > '~' {
			return '_'
		}
		return r
	}, host)
	if host == "" {
		return "-"
	}
	return host[:min(len(host), most)]
}
