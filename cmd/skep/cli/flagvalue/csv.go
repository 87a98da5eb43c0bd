package flagvalue

import (
	"encoding/csv"
	"fmt"
	"strings"
)

// maxFields bounds the key=value pairs of one value: no flag has as many keys.
const maxFields = 32

// field is one key=value pair; hasValue is false for a key alone.
type field struct {
	key, value string
	hasValue   bool
}

// String returns the pair as it was written.
func (f field) String() string {
	if !f.hasValue {
		return f.key
	}
	return f.key + "=" + f.value
}

// fields reads comma-separated key=value pairs, quoted as in a CSV file. Keys are lower-cased.
func fields(text string) ([]field, error) {
	record, err := csv.NewReader(strings.NewReader(text)).Read()
	if err != nil {
		return nil, fmt.Errorf("%q is no list of key=value pairs: %w", text, err)
	}
	if len(record) > maxFields {
		return nil, fmt.Errorf("%d pairs in one value, more than %d", len(record), maxFields)
	}
	out := make([]field, 0, len(record))
	for _, part := range record {
		key, value, ok := strings.Cut(part, "=")
		out = append(out, field{key: strings.ToLower(strings.TrimSpace(key)), value: value, hasValue: ok})
	}
	return out, nil
}
