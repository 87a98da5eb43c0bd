package credential

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/skep-io/skep/internal/atomicfile"
	"github.com/skep-io/skep/store/seal"
)

// ErrCredential is returned when a credential can't be made or does not open.
var ErrCredential = errors.New("unusable credential")

// Name is the credential's name: what is sealed under another one does not open.
const Name = "skep-kek"

// With says what opens a credential, in the words of systemd-creds.
type With string

// What opens a credential.
const (
	TPM2 With = "tpm2"
	Host With = "host"
)

const (
	tool = "systemd-creds"
	// noPCR is the debug PCR, which nothing at boot changes, because systemd 252 can't open what is bound to no PCR at all.
	noPCR = "16"
	// patience bounds a run: slow TPMs take seconds.
	patience = 30 * time.Second
	filePerm = 0o600
	// maxFile bounds a credential file in bytes: one of a key has a few hundred.
	maxFile = 64 << 10
	// maxReason bounds how much of systemd-creds's words an error repeats.
	maxReason = 400
)

// Create makes a fresh key and a file from which Open gets it, durably. It proves that the file opens before it is there.
func Create(ctx context.Context, path string, with With) (seal.Key, error) {
	key := seal.NewKey()
	arguments := []string{"encrypt", "--name=" + Name, "--with-key=" + string(with)}
	if with == TPM2 {
		arguments = append(arguments, "--tpm2-pcrs="+noPCR)
	}
	sealed, err := run(ctx, key.Bytes(), append(arguments, "-", "-")...)
	if err != nil {
		return seal.Key{}, fmt.Errorf("make %s: %w", path, err)
	}
	opened, err := decrypt(ctx, sealed)
	if err == nil && !opened.Equal(key) {
		err = fmt.Errorf("%w: what was sealed opens to something else", ErrCredential)
	}
	if err != nil {
		return seal.Key{}, fmt.Errorf("check the new %s: %w", path, err)
	}
	if err := atomicfile.Write(path, sealed, filePerm); err != nil {
		return seal.Key{}, fmt.Errorf("write %s: %w", path, err)
	}
	return key, nil
}

// Open returns the key in a file that Create made.
func Open(ctx context.Context, path string) (seal.Key, error) {
	sealed, err := read(path)
	if err != nil {
		return seal.Key{}, err
	}
	key, err := decrypt(ctx, sealed)
	if err != nil {
		return seal.Key{}, fmt.Errorf("open %s: %w", path, err)
	}
	return key, nil
}

// Service returns the key that the service manager put into its directory of credentials, which is "" when there is none.
func Service(directory string) (seal.Key, error) {
	if directory == "" {
		return seal.Key{}, fmt.Errorf("%w: the service manager gave none: put LoadCredentialEncrypted=%s:FILE into the unit", ErrCredential, Name)
	}
	path := filepath.Join(directory, Name)
	text, err := read(path)
	if err != nil {
		return seal.Key{}, err
	}
	key, err := seal.KeyFromBytes(text)
	if err != nil {
		return seal.Key{}, fmt.Errorf("%w: %s: %w", ErrCredential, path, err)
	}
	return key, nil
}

// HasTPM2 reports whether systemd-creds can use a TPM2 here.
func HasTPM2(ctx context.Context) bool {
	_, err := run(ctx, nil, "has-tpm2", "--quiet")
	return err == nil
}

func decrypt(ctx context.Context, sealed []byte) (seal.Key, error) {
	text, err := run(ctx, sealed, "decrypt", "--name="+Name, "-", "-")
	if err != nil {
		return seal.Key{}, err
	}
	key, err := seal.KeyFromBytes(text)
	if err != nil {
		return seal.Key{}, fmt.Errorf("%w: %w", ErrCredential, err)
	}
	return key, nil
}

func read(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrCredential, err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("%w: %w", ErrCredential, err)
	case len(b) > maxFile:
		return nil, fmt.Errorf("%w: %s is longer than %d bytes", ErrCredential, path, maxFile)
	}
	return b, nil
}

// run gives systemd-creds input and returns its output.
func run(ctx context.Context, input []byte, arguments ...string) ([]byte, error) {
	path, err := exec.LookPath(tool)
	if err != nil {
		return nil, fmt.Errorf("%w: %w: install systemd 250 or later", ErrCredential, err)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, patience, fmt.Errorf("%s does not answer within %v", tool, patience))
	defer cancel()
	command := exec.CommandContext(ctx, path, arguments...)
	command.Stdin = bytes.NewReader(input)
	command.WaitDelay = time.Second
	output, err := command.Output()
	switch {
	case ctx.Err() != nil:
		return nil, fmt.Errorf("%w: %w", ErrCredential, context.Cause(ctx))
	case err != nil:
		return nil, fmt.Errorf("%w: %s %s: %w%s", ErrCredential, tool, arguments[0], err, reason(err))
	}
	return output, nil
}

// reason returns what systemd-creds said, on one line.
func reason(err error) string {
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		return ""
	}
	text := strings.Join(strings.Fields(string(exit.Stderr)), " ")
	if text == "" {
		return ""
	}
	return ": " + text[max(0, len(text)-maxReason):]
}
