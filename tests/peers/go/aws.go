package main

import (
	"bufio"
	"context"
	"encoding/json"
	"os"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/sts"
)

// question is one line of input; ../aws_client.py says what is meant.
type question struct {
	Env  map[string]string `json:"env"`
	Kept *string           `json:"kept"`
}

// aws is the AWS SDK for Go v2 as an app uses it, its default credential chain untouched.
func aws(settings) error {
	clients := map[string]*sts.Client{}
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		said, err := ask(lines.Bytes(), clients)
		if err != nil {
			said = map[string]string{"error": err.Error()}
		}
		if err := say(said); err != nil {
			return err
		}
	}
	return lines.Err()
}

func ask(line []byte, clients map[string]*sts.Client) (map[string]string, error) {
	var q question
	if err := json.Unmarshal(line, &q); err != nil {
		return nil, err
	}
	for _, pair := range os.Environ() {
		if strings.HasPrefix(pair, "AWS_") {
			os.Unsetenv(strings.SplitN(pair, "=", 2)[0])
		}
	}
	for name, value := range q.Env {
		os.Setenv(name, value)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 40*time.Second)
	defer cancel()
	loaded, err := config.LoadDefaultConfig(ctx)
	if err != nil {
		return nil, err
	}
	client := sts.NewFromConfig(loaded)
	if q.Kept != nil {
		if known := clients[*q.Kept]; known != nil {
			client = known
		}
		clients[*q.Kept] = client
	}
	me, err := client.GetCallerIdentity(ctx, &sts.GetCallerIdentityInput{})
	if err != nil {
		return nil, err
	}
	return map[string]string{"arn": *me.Arn}, nil
}
