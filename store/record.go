package store

import (
	"google.golang.org/protobuf/encoding/protowire"
)

// entryOverhead is what an entry needs beside its only transaction: the tag and the length.
const entryOverhead = 16

// transactionsField is the number of LogRecord.transactions.
const transactionsField = 1

// appendTransaction adds an encoded api.Transaction to an encoded api.LogRecord.
func appendTransaction(record, transaction []byte) []byte {
	record = protowire.AppendTag(record, transactionsField, protowire.BytesType)
	return protowire.AppendBytes(record, transaction)
}
