package flagvalue

import (
	"fmt"
	"strconv"
	"strings"
)

// defaultSecretMode lets everybody in the container read a secret, and nobody write it.
const defaultSecretMode = 0o444

// Secret is a wish for one secret in a container. The secret is named, not yet looked up.
type Secret struct {
	// Source is the secret's name or id.
	Source string
	// Target is the file's name below /run/secrets, or an absolute path.
	Target   string
	UID, GID uint32
	// Mode holds permission bits.
	Mode uint32
}

// Secrets collects secrets, each written NAME or source=NAME,target=FILE,uid=N,gid=N,mode=OCTAL.
type Secrets []Secret

// Set adds one secret.
func (s *Secrets) Set(text string) error {
	secret, err := parseSecret(text)
	if err != nil {
		return err
	}
	*s = append(*s, secret)
	return nil
}

// String is empty: the default is no secret.
func (s *Secrets) String() string { return "" }

// Type is Docker's word.
func (s *Secrets) Type() string { return "secret" }

func parseSecret(text string) (Secret, error) {
	pairs, err := fields(text)
	if err != nil {
		return Secret{}, err
	}
	secret := Secret{Mode: defaultSecretMode}
	if len(pairs) == 1 && !pairs[0].hasValue {
		// The short form keeps its case: fields lower-cases keys only.
		secret.Source = strings.TrimSpace(text)
		secret.Target = secret.Source
		if secret.Source == "" {
			return Secret{}, fmt.Errorf("source is required")
		}
		return secret, nil
	}
	for _, pair := range pairs {
		if !pair.hasValue {
			return Secret{}, fmt.Errorf("invalid field '%s' must be a key=value pair", pair)
		}
		if err := secret.set(pair); err != nil {
			return Secret{}, err
		}
	}
	if secret.Source == "" {
		return Secret{}, fmt.Errorf("source is required")
	}
	if secret.Target == "" {
		secret.Target = secret.Source
	}
	return secret, nil
}

func (s *Secret) set(pair field) error {
	var err error
	switch pair.key {
	case "source", "src":
		s.Source = pair.value
	case "target":
		s.Target = pair.value
	case "uid":
		s.UID, err = parseID("uid", pair.value)
	case "gid":
		s.GID, err = parseID("gid", pair.value)
	case "mode":
		s.Mode, err = parseMode(pair.value)
	default:
		return fmt.Errorf("invalid field in secret request: %s", pair.key)
	}
	return err
}

func parseID(key, text string) (uint32, error) {
	n, err := strconv.ParseUint(text, 10, 32)
	if err != nil {
		return 0, fmt.Errorf("invalid %s specified: %q: write a number", key, text)
	}
	return uint32(n), nil
}

// parseMode reads permission bits in octal.
func parseMode(text string) (uint32, error) {
	n, err := strconv.ParseUint(text, 8, 32)
	if err != nil || n > 0o7777 {
		return 0, fmt.Errorf("invalid mode specified: %q: write octal permission bits such as 0400", text)
	}
	return uint32(n), nil
}
