-- What operators note for each other in a timeline (a dispute, why a review was cleared, where a backup is) is
-- not for the customer to read.
ALTER TABLE instance_event ADD COLUMN is_internal boolean NOT NULL DEFAULT false;
UPDATE instance_event SET is_internal = true WHERE reason IN ('ReviewNeeded', 'ReviewCleared', 'FinalBackup');
DROP POLICY own ON instance_event;
CREATE POLICY own ON instance_event TO berth_customer
    USING (NOT is_internal AND instance_id IN (SELECT id FROM instance));
