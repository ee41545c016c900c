-- An event is written once and hardly read again, and compressing it cost a third of storing it: events of up
-- to 8 kB, nearly all, stay as they are. 3 kB each instead of 2 is the price.
ALTER TABLE stripe_event SET (toast_tuple_target = 8160);
